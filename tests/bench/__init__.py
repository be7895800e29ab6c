"""Measures Switchboard against a bare loop on the same client library, and against other ways to do the same work.

`make bench` runs all of it and writes docs/performance.md. Every figure is a ratio from one run: contenders take turns
on one RabbitMQ and one Redis, so that whatever else the machine does meets all of them.
"""

"""A Chatsky `Pipeline` as a bot: its context storage is the turn.

What it reads comes from what the turn loaded, older turns from the store when they are asked for; what it writes joins
the turn's one commit (docs/decisions/0013). Only `worker.apps` imports this, and only for a bot that is a pipeline.
"""

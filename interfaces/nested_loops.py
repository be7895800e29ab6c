"""Importing Chatsky without what it does to asyncio.

Chatsky's `__init__` applies `nest_asyncio`: it fails inside a running uvloop, and everywhere it replaces asyncio's task
and future, written in C, by the slow ones in Python, for the whole process. Nothing on the way of a turn needs it. A
bot that asks for nested loops itself still gets them.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def nested_loops_prevented() -> Iterator[None]:
    """Inside, importing Chatsky leaves asyncio as it is. Where Chatsky was imported before, nothing changes."""
    try:
        import nest_asyncio
    except ImportError:  # then there is no Chatsky either
        yield
        return
    apply = nest_asyncio.apply

    def apply_unless_chatsky(*args: Any) -> None:
        if sys._getframe(1).f_globals.get("__name__") != "chatsky":  # noqa: SLF001 - the one way to know who calls
            apply(*args)

    nest_asyncio.apply = apply_unless_chatsky
    try:
        yield
    finally:
        nest_asyncio.apply = apply

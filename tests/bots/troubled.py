"""A bot that gets into the trouble that its message names. Run by the workers of `tests/alerts`.

`fail` fails every time, `fail once` only at first; `wait S` takes S seconds and lets others go on, `block S` does not;
`ignore` does not end when it is cancelled. All else is answered at once.
"""

import asyncio
import time

from interfaces.context import Context

_failed: set[str | None] = set()


async def answer(ctx: Context) -> str:
    """Do what the message says, then reply with it."""
    text = ctx.last_request.text or ""
    word, _, rest = text.partition(" ")
    if word == "fail" and (rest != "once" or ctx.request_id not in _failed):
        _failed.add(ctx.request_id)
        raise RuntimeError("as asked")
    if word == "wait":
        await asyncio.sleep(float(rest.split()[0]))
    if word == "block":
        time.sleep(float(rest))  # noqa: ASYNC251 - that is the trouble
    while text == "ignore":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue
    return text

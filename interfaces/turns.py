"""`Turns`: how a handler asks its context for turns, be they in memory or only in the store."""

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, overload

from interfaces.turn_records import TurnView

if TYPE_CHECKING:
    from interfaces.context import Context


class Turns:
    """What `Context.turns` gives: turns by id, by negative index from the end, or by slice, always to be awaited.

    `request, label, response = await ctx.turns[-1]`; `for request, label, response in await ctx.turns[-5:]`.
    Ids run from 0, which has at most a label, to `current_turn_id`. An id outside raises `IndexError`, a store that
    cannot be reached `StoreUnavailable`. However many turns are missing in memory, they are loaded in one call.
    """

    def __init__(self, context: "Context") -> None:
        self._context = context

    @overload
    def __getitem__(self, key: int) -> Coroutine[Any, Any, TurnView]: ...

    @overload
    def __getitem__(self, key: slice) -> Coroutine[Any, Any, list[TurnView]]: ...

    def __getitem__(self, key: int | slice) -> Coroutine[Any, Any, TurnView | list[TurnView]]:
        ids = range(self._context.current_turn_id + 1)
        return self._several(ids[key]) if isinstance(key, slice) else self._one(ids[key])

    async def _one(self, turn_id: int) -> TurnView:
        return (await self._several([turn_id]))[0]

    async def _several(self, turn_ids: Sequence[int]) -> list[TurnView]:
        context = self._context
        await context._hold(turn_ids)  # noqa: SLF001 - this class is one half of Context
        return [(context.requests.get(n), context.labels.get(n), context.responses.get(n)) for n in turn_ids]

"""The tests' own event loop."""

import asyncio

import pytest

from tests.services.settling_loop import SettlingLoop


@pytest.mark.parametrize(("loop", "is_ended"), [(asyncio.SelectorEventLoop, False), (SettlingLoop, True)])
def test_what_the_end_of_a_loop_begins_is_ended_too(loop: type[asyncio.SelectorEventLoop], is_ended: bool) -> None:
    begun: list[asyncio.Task[None]] = []

    def begin(_: "asyncio.Task[None]") -> None:
        begun.append(asyncio.get_running_loop().create_task(asyncio.sleep(3600)))

    async def leave_one_behind() -> None:
        asyncio.create_task(asyncio.sleep(3600)).add_done_callback(begin)
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(leave_one_behind())
    [task] = begun
    assert task.done() is is_ended
    if not is_ended:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own way to keep it quiet
        task.get_coro().close()  # it never began

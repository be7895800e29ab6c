"""docs/chatsky.md: how a Chatsky pipeline runs here, and what `tests.chatsky_comparison` has measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib import pyplot

COLOURS: Final = ("#1f6f8b", "#999999")


@dataclass(frozen=True, slots=True)
class Loss:
    """What was left of messages sent to one context at once."""

    way: str
    counted: int
    """Messages that the bot's own count has at the end."""
    kept: int
    """Requests in the stored history."""
    errors: dict[str, int]
    """What messages ended with instead of an answer."""


@dataclass(frozen=True, slots=True)
class Length:
    """What a turn costs around one place in a dialog, in milliseconds; the medians of `every` turn measured."""

    who: str
    turn: int
    time: float
    process: float
    """Processor time of the process that runs the pipeline."""
    redis: float
    """Processor time of its Redis."""
    every: list[float]


def losses(found: Sequence[Loss], messages: int) -> str:
    """The rows of the table of lost messages."""
    rows = []
    for way in dict.fromkeys(loss.way for loss in found):
        mine = [loss for loss in found if loss.way == way]
        raised = [sum(loss.errors.values()) for loss in mine]
        lost = [messages - loss.counted - failed for loss, failed in zip(mine, raised, strict=True)]
        columns = ([loss.counted for loss in mine], [loss.kept for loss in mine], raised, lost)
        rows.append(f"| {way} | {' | '.join(_range(column) for column in columns)} |")
    return "\n".join(rows)


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least} - {most}"


def errors(found: Sequence[Loss]) -> str:
    """What was raised, where anything was."""
    kinds = sorted({kind for loss in found for kind in loss.errors})
    return f"What was raised: {', '.join(f'`{kind}`' for kind in kinds)}." if kinds else "Nothing was raised."


def lengths(found: Sequence[Length]) -> str:
    """The rows of the table of costs."""
    rows = []
    for who in dict.fromkeys(length.who for length in found):
        mine = [length for length in found if length.who == who]
        for length in mine:
            values = f"{length.time:.1f} | {length.process:.1f} | {length.redis:.2f}"
            rows.append(f"| {who} | {length.turn:,} | {values} | {length.time / mine[0].time:.2f} |")
    return "\n".join(rows)


def plot(found: Sequence[Length], path: Path) -> None:
    """Time of a turn against the turns before it, every measured turn a dot."""
    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    for who, colour in zip(dict.fromkeys(length.who for length in found), COLOURS, strict=True):
        mine = [length for length in found if length.who == who]
        axes.plot([length.turn for length in mine], [length.time for length in mine], color=colour, label=who)
        for length in mine:
            axes.scatter([length.turn] * len(length.every), length.every, color=colour, s=6, alpha=0.25, linewidths=0)
    axes.set_xscale("log")
    axes.set_xticks([length.turn for length in found], [f"{length.turn:,}" for length in found])
    axes.minorticks_off()
    axes.set_ylim(0, 1.25 * max(length.time for length in found))
    axes.set_xlabel("turn of the dialog")
    axes.set_ylabel("milliseconds a turn, median")
    axes.set_title("A turn of the same pipeline, the longer its dialog is")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)
    pyplot.close(figure)


def page(lost: Sequence[Loss], long: Sequence[Length], machine: str, messages: int) -> str:
    """The documentation's page."""
    rounds = len([loss for loss in lost if loss.way == lost[0].way])
    turns = min(len(length.every) for length in long)
    return f"""# Chatsky pipelines

`switchboard run bot:pipeline` runs a Chatsky 0.10 `Pipeline` as it is (extra `chatsky`): script, conditions,
responses, processing, slots, services, extra handlers. Its `context_storage` is replaced by the turn. What the pipeline
reads comes from what the turn has loaded, older turns from Redis when they are asked for; what it writes is committed
together with the reply, in one step, or not at all. `partial_read_config` and `rewrite_existing` of the storage it was
made with hold.

What differs from Chatsky alone:

* **Nothing is pickled, and nothing unpickled.** What a bot puts into `misc`, into messages and into statistics must be
  JSON; anything else is refused with an error that names the key, and the message becomes a dead letter. Slots may also
  hold dates, times, decimals, UUIDs, tuples and sets.
* **A turn may be run again** when its worker dies before the commit. What services do outside the context is then done
  twice; what they do in it is not.
* `ctx.store()` in the middle of a turn joins the commit, and `ctx.delete()` in a context's own turn is refused.
* The event loop is not patched: `nest_asyncio`, which importing Chatsky applies, is kept out of workers.
* Chatsky logs a line for every turn at level `info`. A worker shows its warnings alone.

Twelve bots, one for each part of Chatsky, give the same replies and leave the same contexts over RabbitMQ, with two
workers that are killed at random, as in one process of Chatsky alone (`tests/integration/test_chatsky_bots.py`).

The figures below are written by `make chatsky-comparison`.
Machine: {machine}, all on it.
They are this machine's; what counts is how they compare.

## Messages at once to one context

{messages} messages to one context at the same time, to a bot that counts them in `misc`; {rounds} round(s), the ways
alternating. *Counted* is the bot's count at the end, *kept* how many of the requests are in the stored history,
*raised* how many ended with an error, and *lost* were answered and are not in the count.

| way | counted | kept | raised | lost |
|---|---|---|---|---|
{losses(lost, messages)}

{errors(lost)}

Chatsky's own storage reads a context, runs the turn and writes the context back, without looking whether somebody else
has written it since. Here the turns of a context run one at a time, and a commit fails where the version has moved.

## Long dialogs

The same pipeline in one worker process, behind RabbitMQ, and in one process of Chatsky with its own Redis storage,
without a broker. One turn here, one there, all turns of the dialogs really run; medians of at least {turns} turns
around each place. Milliseconds: *time* from the message to its answer (here with the broker's part, there
`_run_pipeline` alone), *process* and *Redis* the processor time of either; *times* is the time against that at the
first place.

| run by | turn | time | process | Redis | times |
|---|---|---|---|---|---|
{lengths(long)}

![time of a turn against the length of its dialog](chatsky.svg)

Chatsky's storage asks for the numbers of all turns with every turn, and sorts them; here they are kept as ranges, and a
turn reads what it names. `tests/integration/test_chatsky_costs.py` counts it: as many bytes, commands and function
calls at turn 2,000 as at turn 10.
"""

"""What may come again although it was acknowledged: never less than a broker can deliver again, whatever it lost."""

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from interfaces.returnable import Returnable

PREFETCH = 4
steps = st.lists(st.sampled_from(["publish a", "publish b", "deliver", "settle", "settle two", "note"]), max_size=80)


class Queue:
    """A queue with a prefetch, and acknowledgements that reach it late: how late is what a test chooses."""

    def __init__(self) -> None:
        self.ready: deque[str] = deque()
        self.held: deque[str] = deque()
        """Delivered and not acknowledged."""
        self.on_their_way: deque[str] = deque()
        """Acknowledged, which the queue does not know."""
        self.returnable = Returnable(PREFETCH)

    def step(self, name: str) -> None:
        if name.startswith("publish"):
            self.ready.append(name)
        elif name == "deliver" and self.ready and len(self.held) + len(self.on_their_way) < PREFETCH:
            self.held.append(self.ready.popleft())
            self.returnable.delivered(is_repeated=False)
        elif name == "settle" and self.held:
            self.on_their_way.append(self.held.popleft())
            self.returnable.acknowledged(self.on_their_way[-1])
        elif name == "settle two" and len(self.held) > 1:
            first, second = self.held.popleft(), self.held.popleft()
            for ctx_id in (first, second):
                self.returnable.acknowledged(ctx_id)
            self.on_their_way.extend([second, first])  # in one tick, which sends the oldest last
        elif name == "note" and self.on_their_way:
            self.on_their_way.popleft()


@given(steps)
def test_it_covers_all_that_a_lost_connection_brings_back_and_no_more_than_twice_the_prefetch(names: list[str]) -> None:
    queue = Queue()
    for name in names:
        queue.step(name)
        lost = Counter(queue.on_their_way)
        for ctx_id in ("publish a", "publish b"):
            assert lost[ctx_id] <= queue.returnable.of(ctx_id) <= 2 * PREFETCH


def test_as_many_deliveries_as_the_prefetch_show_that_an_earlier_one_was_noted() -> None:
    returnable = Returnable(2)
    returnable.delivered(is_repeated=False)
    returnable.acknowledged("a")
    returnable.delivered(is_repeated=False)
    returnable.acknowledged("b")
    assert [returnable.of(ctx_id) for ctx_id in "ab"] == [1, 1]
    returnable.delivered(is_repeated=False)
    assert [returnable.of(ctx_id) for ctx_id in "ab"] == [0, 1]
    returnable.delivered(is_repeated=False)
    assert [returnable.of(ctx_id) for ctx_id in "ab"] == [0, 0]


def test_a_repeated_delivery_shows_nothing() -> None:
    """A queue that lost sight of its consumer delivers the same request once more, and has noted nothing by that."""
    returnable = Returnable(1)
    returnable.delivered(is_repeated=False)
    returnable.acknowledged("a")
    returnable.delivered(is_repeated=True)
    assert returnable.of("a") == 1

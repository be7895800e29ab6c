"""A worker that knows layout 1 alone."""

from tests.services.layout_1 import LAYOUT_1
from worker.cli import main
from worker.stores import pipelining


class OlderScript(pipelining.Script):
    """What a worker of layout 1 calls by this name."""

    @classmethod
    def named(cls, name: str, *before: str) -> pipelining.Script:
        return LAYOUT_1.get(name) or super().named(name, *before)


if __name__ == "__main__":
    vars(pipelining)["Script"] = OlderScript  # before the store, which names its scripts when it is imported
    main()

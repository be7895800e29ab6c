"""`switchboard run APP` that tells of every pickle it reads: `python -m tests.services.watched_worker APP`.

Each way into `pickle` writes a line to standard error before anything is read, and so does every class a pickle asks
for, whoever reads it. Settings come from the environment, as those of the command.
"""

import pickle
import runpy
import sys
from typing import Any

UNPICKLING = "UNPICKLING"


def watch() -> None:
    """Begin to tell. Before any other import: what imports `loads` by name must get the one that tells."""

    def hook(event: str, _: Any) -> None:
        if event == "pickle.find_class":
            tell()

    sys.addaudithook(hook)
    for name in ("load", "loads"):
        setattr(pickle, name, _telling(getattr(pickle, name)))


def tell() -> None:
    """Write the line."""
    sys.stderr.write(f"{UNPICKLING}\n")
    sys.stderr.flush()


def _telling(read: Any) -> Any:
    def telling(*arguments: Any, **options: Any) -> Any:
        tell()
        return read(*arguments, **options)

    return telling


if __name__ == "__main__":
    watch()
    sys.argv[1:1] = ["run"]
    runpy.run_module("worker.cli", run_name="__main__", alter_sys=True)

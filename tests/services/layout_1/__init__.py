"""The scripts of workers that stored contexts in layout 1 (docs/decisions/0029), as they were.

`python -m tests.services.layout_1 run APP` is a worker with them, otherwise as `switchboard`.
"""

from hashlib import sha1
from pathlib import Path
from typing import Final

from worker.stores.pipelining import Script


def _script(path: Path) -> Script:
    source = path.read_bytes()
    return Script(path.stem, source, sha1(source, usedforsecurity=False).hexdigest().encode())


LAYOUT_1: Final = {path.stem: _script(path) for path in Path(__file__).parent.glob("*.lua")}
"""By name: those that have changed since."""

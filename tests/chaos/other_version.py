"""A worker of another version: `python -m tests.chaos.other_version run APP`, otherwise as `switchboard`.

It differs from the one beside it in all that versions may differ in and still share a namespace: what it says of itself
lacks what an older one does not know and has what only a newer one does, and its scripts are other scripts to Redis.
"""

import json
from hashlib import sha1
from typing import Any

from worker import members
from worker.cli import main
from worker.stores import pipelining

KNOWN_BY_ALL = ("consuming", "subscribed", "writes", "reads")


class OtherMember(members.Member):
    """Says less than a worker of this version, and more."""

    def model_dump_json(self, **options: Any) -> str:
        said = json.loads(super().model_dump_json(**options))
        return json.dumps({name: said[name] for name in KNOWN_BY_ALL} | {"mood": ["of a newer version"]})


class OtherScript(pipelining.Script):
    """Does the same by another text."""

    @classmethod
    def named(cls, name: str, *before: str) -> pipelining.Script:
        source = super().named(name, *before).source + b"\n-- of another version\n"
        return cls(name, source, sha1(source, usedforsecurity=False).hexdigest().encode())


if __name__ == "__main__":
    vars(members)["Member"] = OtherMember
    vars(pipelining)["Script"] = OtherScript  # before the store, which names its scripts when it is imported
    main()

"""What the tests of `switchboard dead` use: the command as a process, and dead letters as workers make them."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from interfaces.brokers import Broker, Outgoing
from interfaces.dead_letters import dead_letter
from interfaces.envelope import encode_request
from interfaces.errors import Reason, RequestRejected
from interfaces.messages import Message
from interfaces.topology import Topology
from tests.services.processes import ROOT
from tests.unit.deliveries import delivery

AT_A_TIME = 100


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


class DeadCommand:
    """Runs `switchboard dead`, or another group of commands, with a worker's settings."""

    def __init__(self, settings: Mapping[str, str], group: str = "dead") -> None:
        self._settings = settings
        self._group = group

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "worker.cli", self._group, *arguments),
            cwd=ROOT,
            env={**environ, **self._settings, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str, code: int = 0, **environment: str) -> Done:
        """Run it to its end, which must have this exit code."""
        done = await self.end(await self.start(*arguments, **environment))
        assert done.code == code, done
        return done

    async def end(self, process: asyncio.subprocess.Process) -> Done:
        out, err = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    async def listed(self, *arguments: str, **environment: str) -> list[dict[str, Any]]:
        """The dead letters that are listed."""
        found = json.loads((await self("list", "--json", *arguments, code=0, **environment)).out)
        assert found["matching"] == len(found["dead_letters"])
        letters: list[dict[str, Any]] = found["dead_letters"]
        return letters


def buried(
    topology: Topology,
    ctx_id: str,
    text: str,
    *,
    reason: Reason = Reason.HANDLER_FAILED,
    worker: str = "Interface-8f2c",
    detail: str = "ValueError('boom')",
    **properties: Any,
) -> Outgoing:
    """The dead letter of a request whose id is `CTX_ID-TEXT`."""
    request = encode_request(topology, Message(text), ctx_id, request_id=f"{ctx_id}-{text}")
    given_up = replace(
        delivery(request.body),
        properties=replace(request.properties, **properties),
        exchange=request.exchange,
        routing_key=request.routing_key,
    )
    return dead_letter(topology, given_up, RequestRejected(reason, detail, attempts=3), worker)


async def publish_all(broker: Broker, messages: Sequence[Outgoing]) -> None:
    """Publish in order; the broker is healthy, so what is written first is there first."""
    for first in range(0, len(messages), AT_A_TIME):
        await asyncio.gather(*(broker.publish(message) for message in messages[first : first + AT_A_TIME]))

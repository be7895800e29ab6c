"""A publisher in another language, which speaks the wire contract and shares no code with us, gets its replies."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from interfaces.topology import slot
from tests.integration.conftest import Report, StartWorker

SCRIPT = Path(__file__).with_name("foreign_publisher.js")
PUBLISHER_SECONDS = 60
EMOJI = "\N{GRINNING FACE}"

DIALOGS = {
    "plain": ["hello", "and again", "and once more"],
    "Größe/東京/مرحبا": ["Wie groß?", "どのくらい", "كم"],
    EMOJI * 50: [EMOJI, f"{EMOJI}\N{EMOJI MODIFIER FITZPATRICK TYPE-5}", "e\N{COMBINING ACUTE ACCENT}"],
    "{braces} and\nlines\tand #.* and \u2028": ['"quoted" \\ back', "line\u2028separator", "nul \0 inside"],
    **{f"context {number}": ["first", "second"] for number in range(100)},
}


async def run_publisher(directory: Path, **order: Any) -> list[dict[str, Any]]:
    """Run the publisher in Node to its end; the replies it got, in the order it got them."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCRIPT),
        env=os.environ | {"NODE_PATH": str(directory / "node_modules")},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PUBLISHER_SECONDS):
            output, errors = await process.communicate(json.dumps(order).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return [json.loads(line) for line in output.decode().split("\n") if line]


@pytest.mark.parametrize("reply_to", ["direct", "queue"])
async def test_a_publisher_in_node_gets_the_reply_to_every_request_in_order(
    reply_to: str,
    node_amqplib: Path,
    amqp_url: str,
    namespace: str,
    start_worker: StartWorker,
    report: Report,
) -> None:
    worker = await (await start_worker("tests.bots.counting:answer")).ready()

    replies = await run_publisher(
        node_amqplib, url=amqp_url, namespace=namespace, name="node", replyTo=reply_to, dialogs=DIALOGS
    )

    assert len(replies) == sum(map(len, DIALOGS.values()))
    assert len({reply["properties"]["messageId"] for reply in replies}) == len(replies)
    found: dict[str, list[tuple[int, str, str]]] = {ctx_id: [] for ctx_id in DIALOGS}
    for reply in replies:
        body, properties = json.loads(reply["body"]), reply["properties"]
        assert (body["version"], body["status"]) == (1, "ok")
        assert properties["contentType"] == "application/json"
        found[body["ctx_id"]].append((body["turn"], body["message"]["text"], properties["correlationId"]))
    for ctx_id, texts in DIALOGS.items():
        assert found[ctx_id] == [
            (turn, f"{turn}: {text}", json.dumps([slot(ctx_id), text], ensure_ascii=False, separators=(",", ":")))
            for turn, text in enumerate(texts, start=1)
        ]
    assert await worker.stop() == 0, worker.log
    report(f"{len(replies)} replies to {len(DIALOGS)} contexts")

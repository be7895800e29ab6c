"""`switchboard schema`: what goes over the wire, as JSON Schema, for publishers in any language."""

from typing import Any

import click
from pydantic import BaseModel

from interfaces.envelope import RequestBody
from interfaces.reply_bodies import Reply
from worker.cli.commands import Command, examples
from worker.cli.output import print_json

BODIES: dict[str, type[BaseModel]] = {"request": RequestBody, "reply": Reply}


@click.command(
    "schema",
    cls=Command,
    epilog=examples("switchboard schema request > request.schema.json", "switchboard schema | jq .reply.required"),
)
@click.argument("body", type=click.Choice(list(BODIES)), required=False)
def command(body: str | None) -> None:
    """Print the JSON Schemas of requests and replies.

    One of them where it is named; otherwise an object with both.
    """
    print_json({name: schema(name) for name in BODIES} if body is None else schema(body))


def schema(body: str) -> dict[str, Any]:
    """The JSON Schema of one body as it travels."""
    generated = BODIES[body].model_json_schema()
    # A default serves those who write Python; on the wire the version is always there.
    required = ["version", *generated["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | generated | {"required": required}

"""Lines of a turn say whose they are, for people and as JSON, with hashed context ids where that is wanted."""

import asyncio
import base64
import json
import logging
import os
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest

from interfaces import Context
from interfaces.client import BrokerClient
from interfaces.current_turn import CURRENT
from interfaces.encryption import Keys
from worker import Settings, Worker
from worker.cli.logs import TurnFields, hashed, log_to_stderr, pass_on_json

Capture = pytest.CaptureFixture[str]
KEY = "k1:" + base64.b64encode(bytes(range(64))).decode()
logger = logging.getLogger("tests.bot")


@pytest.fixture(autouse=True)
def _log_of_its_own() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers
    yield
    root.setLevel(level)
    root.handlers = handlers


def begin(level: str, settings: Settings) -> TurnFields:
    logging.getLogger().handlers = []  # pytest adds its own before each test
    return log_to_stderr(level, settings)


async def bot(ctx: Context) -> str:
    logger.warning("working at context %r", ctx.id)
    if ctx.last_request.text == "fail":
        raise ValueError(f"no good: {ctx.id!r}")
    return "done"


def plain_bot(ctx: Context) -> str:
    logger.warning("in a thread")
    return "done"


async def lines_of_a_turn(capsys: Capture, text: str = "hello", app: Any = bot, **settings: Any) -> list[str]:
    given = Settings(amqp_url=f"memory://{os.urandom(4).hex()}", attempts=1, **settings)
    fields = begin("warning", given)
    worker = Worker(app, given)
    fields.worker = worker.name
    async with Running(worker), BrokerClient(given.amqp_url.get_secret_value(), keys=given.keys) as client:
        await client.ask(text, "ada", request_id="r-1")
    return capsys.readouterr().err.replace(worker.name, "THE-WORKER").splitlines()


class Running:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._worker.run())
        await self._worker.wait_ready()

    async def __aexit__(self, *_: object) -> None:
        self._worker.stop()
        await self._task


async def test_a_line_for_people_ends_with_its_turn(capsys: Capture) -> None:
    (line,) = await lines_of_a_turn(capsys)
    assert re.search(
        r"WARNING tests\.bot: working at context 'ada'  "
        r"\[ctx_id='ada' request_id='r-1' queue='switchboard\.requests\.g1\.\d{3}' worker='THE-WORKER'\]$",
        line,
    )


async def test_a_line_of_json_has_its_turn_in_fields(capsys: Capture) -> None:
    (line,) = await lines_of_a_turn(capsys, log_format="json")
    told = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", told.pop("timestamp"))
    assert re.fullmatch(r"switchboard\.requests\.g1\.\d{3}", told.pop("queue"))
    assert told == {
        "level": "warning",
        "logger": "tests.bot",
        "event": "working at context 'ada'",
        "ctx_id": "ada",
        "request_id": "r-1",
        "worker": "THE-WORKER",
    }


async def test_what_a_plain_bot_logs_in_its_thread_has_its_turn_too(capsys: Capture) -> None:
    (line,) = await lines_of_a_turn(capsys, app=plain_bot, log_format="json")
    assert (json.loads(line)["event"], json.loads(line)["ctx_id"]) == ("in a thread", "ada")


async def test_a_failure_is_one_object_with_its_traceback_and_says_whose_dead_letter_it_is(
    capsys: Capture,
) -> None:
    _, failed, dead = map(json.loads, await lines_of_a_turn(capsys, "fail", log_format="json"))
    assert failed["event"] == "the bot failed on request 'r-1'"
    assert "ValueError: no good: 'ada'" in failed["exception"]
    assert dead["event"].startswith("request 'r-1' is a dead letter: handler-failed")
    assert failed["ctx_id"] == dead["ctx_id"] == "ada"


@pytest.mark.parametrize("log_format", ["json", "people"])
async def test_with_hashed_ids_no_line_of_a_turn_has_the_context_id(capsys: Capture, log_format: str) -> None:
    lines = await lines_of_a_turn(capsys, "fail", log_format=log_format, log_hash_ids=True)
    assert lines
    assert "ada" not in "".join(lines)
    assert hashed("ada", None) in lines[0]


async def test_hashes_depend_on_the_key_where_there_is_one(capsys: Capture) -> None:
    (line,) = await lines_of_a_turn(capsys, log_format="json", log_hash_ids=True, encryption_keys=KEY)
    ctx_id = json.loads(line)["ctx_id"]
    assert ctx_id == hashed("ada", Keys.parse(KEY))
    assert ctx_id not in {hashed("ada", None), hashed("eve", Keys.parse(KEY))}
    assert re.fullmatch(r"[0-9a-f]{16}", ctx_id)


def test_outside_of_a_turn_a_line_says_nothing_of_one(capsys: Capture) -> None:
    begin("info", Settings(log_format="json"))
    assert CURRENT.get() is None
    logger.info("no turn")
    assert set(json.loads(capsys.readouterr().err)) == {"timestamp", "level", "logger", "event"}


def test_json_of_hostile_text_is_one_line_of_ascii(capsys: Capture) -> None:
    begin("info", Settings(log_format="json"))
    hostile = "a\nb\x1b[2J\u202e\ud800"
    logger.info("%s", hostile)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["event"] == hostile


def test_a_supervisor_passes_on_json_with_the_number_of_the_worker(capsys: Capture) -> None:
    pass_on_json(2, '{"event": "one"}')
    pass_on_json(3, "Segmentation fault")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first == {"process": 2, "event": "one"}
    assert (second["process"], second["event"], second["level"]) == (3, "Segmentation fault", "error")
    assert cast("str", second["timestamp"]).endswith("+00:00")

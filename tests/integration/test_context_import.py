"""`switchboard context import` on dialogs that Chatsky's own pipeline and storage have made, in another process."""

import asyncio
import base64
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis as sync_redis

from interfaces.client import BrokerClient
from interfaces.errors import ExitCode
from interfaces.messages import Message
from interfaces.nested_loops import nested_loops_prevented
from tests.integration.conftest import Report
from tests.services.processes import ROOT
from worker.running import Worker
from worker.settings import Settings
from worker.stores.redis import RedisStore

with nested_loops_prevented():
    from tests.bots.chatsky_shop import shop

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the 'model_fields'")  # Chatsky's pipelines do

BEFORE = {
    "ada": ["hi", "I am Ada from Paris", "something odd"],
    "bob: é*[1]": ["I am Bob"],
    "eve": ["hi", "bye"],
    "long": [f"line {number}" for number in range(30)],
}
AFTER = {
    "ada": ["bye", "again", "I am Eva"],
    "bob: é*[1]": ["odd", "from Rome"],
    "eve": ["hello", "bye", "bye"],
    "long": ["one more"],
    "new": ["hi"],
}


class Source:
    """Chatsky's storage on the Redis of the run, and the command that takes dialogs over from it."""

    def __init__(self, redis_url: str, namespace: str) -> None:
        self.url = redis_url
        self.prefix = f"chatsky?{namespace}"
        self.namespace = namespace
        self.redis = sync_redis.Redis.from_url(redis_url)
        self.environment = {**os.environ, "SWITCHBOARD_REDIS_URL": redis_url, "SWITCHBOARD_NAMESPACE": namespace}

    def converse(self, dialogs: dict[str, list[str]]) -> dict[str, list[Any]]:
        """What Chatsky alone answers."""
        command = [sys.executable, "-m", "tests.bots.chatsky_shop", self.url, self.prefix, json.dumps(dialogs)]
        ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        answers: dict[str, list[Any]] = json.loads(ran.stdout)
        return answers

    def command(self, *more: str) -> list[str]:
        arguments = ["context", "import", self.url, "--prefix", self.prefix, *more]
        return [sys.executable, "-m", "worker.cli", *arguments]

    def take_over(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*more), cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )

    def begin_to_take_over(self) -> subprocess.Popen[str]:
        # A run of the tests in the background ignores SIGINT, and its children would too.
        obeying = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        python, _, _, *arguments = self.command()
        return subprocess.Popen(
            [python, "-c", f"{obeying}; from worker.cli import main; main()", *arguments],
            cwd=ROOT,
            env=self.environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def set_main(self, ctx_id: str, **fields: str | None) -> None:
        """Change what is stored of a dialog beside its turns; `None` removes a field."""
        key = f"{self.prefix}:main:{ctx_id}"
        for name, value in fields.items():
            self.redis.hdel(key, name) if value is None else self.redis.hset(key, name, value)

    def set_item(self, ctx_id: str, table: str, turn_id: int | str, value: str) -> None:
        self.redis.hset(f"{self.prefix}:turns:{ctx_id}:{table}", str(turn_id), value)

    def copy(self, ctx_id: str, name: str) -> None:
        """A dialog once more, under another id."""
        for key in ("main:{}", "turns:{}:labels", "turns:{}:requests", "turns:{}:responses"):
            self.redis.copy(f"{self.prefix}:{key.format(ctx_id)}", f"{self.prefix}:{key.format(name)}")

    def slots(self, ctx_id: str, value: object) -> str:
        """The dialog's framework data with a pickle of `value` as the extracted value of a slot."""
        data = json.loads(self.redis.hget(f"{self.prefix}:main:{ctx_id}", "framework_data") or b"{}")
        slot = {"is_slot_extracted": True, "extracted_value": pickled(value), "default_value": None}
        data["slot_manager"]["slot_storage"]["person"]["name"] = slot
        return json.dumps(data)


def pickled(value: object) -> str:
    return base64.encodebytes(pickle.dumps(value)).decode()


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self._path}",)


@pytest.fixture
def source(redis_url: str, namespace: str) -> Iterator[Source]:
    source = Source(redis_url, namespace)
    yield source
    for key in source.redis.scan_iter(match=f"chatsky[?]{namespace}:*", count=1000):
        source.redis.delete(key)
    source.redis.close()


@pytest.fixture
async def ours(store: RedisStore, namespace: str) -> AsyncIterator[BrokerClient]:
    """A client of a worker that runs the same pipeline on the contexts of the namespace."""
    settings = Settings(amqp_url=f"memory://{namespace}", redis_url="memory://", namespace=namespace, attempts=1)
    worker = Worker(shop(), settings, store=store)
    working = asyncio.create_task(worker.run())
    await worker.wait_ready()
    async with BrokerClient(f"memory://{namespace}", namespace=namespace) as client:
        yield client
    worker.stop()
    await working


async def test_dialogs_go_on_exactly_where_they_stopped(source: Source, ours: BrokerClient, store: RedisStore) -> None:
    source.converse(BEFORE)
    taken = source.take_over()
    assert (taken.returncode, taken.stdout) == (0, "dialogs: 4 taken over, 0 were here already, 0 refused\n")
    stored = await store.peek("ada", 1)
    assert stored is not None
    assert stored.version == 3

    truth = source.converse(AFTER)
    for ctx_id, lines in AFTER.items():
        for line, answer in zip(lines, truth[ctx_id], strict=True):
            reply = await ours.ask(Message(line, misc={"line": line}), ctx_id)
            assert reply.error is None
            assert reply.message == Message.model_validate(answer)


@pytest.mark.parametrize("torn", ["current_turn_id", "label", "request", "response", "the last turn"])
async def test_a_dialog_that_chatsky_has_stored_in_part_goes_on_as_it_does_there(
    source: Source, ours: BrokerClient, torn: str
) -> None:
    """Its storage writes field by field, so a process that dies leaves any part of a turn."""
    source.converse({"ada": ["hi", "I am Ada", "bye"]})
    if torn == "current_turn_id":
        source.set_main("ada", current_turn_id="2")
    else:
        for table in ("label", "request", "response") if torn == "the last turn" else (torn,):
            source.redis.hdel(f"{source.prefix}:turns:ada:{table}s", "3")
    assert source.take_over().returncode == 0

    lines = ["again", "odd", "bye"]
    truth = source.converse({"ada": lines})
    for line, answer in zip(lines, truth["ada"], strict=True):
        reply = await ours.ask(Message(line, misc={"line": line}), "ada")
        assert reply.message == Message.model_validate(answer)


async def test_what_is_taken_stays_as_it_is_however_often_it_is_asked_for(
    source: Source, ours: BrokerClient, store: RedisStore
) -> None:
    source.converse({"ada": ["hi"]})
    source.take_over()
    await ours.ask("more", "ada")
    source.converse({"ada": ["elsewhere"] * 5, "bob": ["hi"]})
    again = source.take_over()
    assert (again.returncode, again.stdout) == (0, "dialogs: 1 taken over, 1 were here already, 0 refused\n")
    stored = await store.peek("ada", 10)
    assert stored is not None
    assert stored.version == 2


async def test_the_time_of_a_dialog_and_the_interface_of_a_message_are_kept_and_its_original_is_not(
    source: Source, store: RedisStore
) -> None:
    source.converse({"ada": ["hi"]})
    source.take_over()
    stored = await store.peek("ada", 10)
    assert stored is not None
    assert stored.main is not None
    main = json.loads(stored.main)
    for name in ("created_at", "updated_at"):
        assert main[name] == int(source.redis.hget(f"{source.prefix}:main:ada", name) or 0)
    assert json.loads(stored.turns[1])["request"]["origin"] == {"interface": "shop"}
    assert "gASV" not in stored.main.decode() + "".join(turn.decode() for turn in stored.turns.values())


def test_no_pickle_in_the_storage_runs_anywhere(source: Source, tmp_path: Path) -> None:
    source.converse({"ada": ["hi"]})
    touched = tmp_path / "touched"
    hostile = pickled(Touches(touched))
    marked = {"__pickled_extra_fields__": ["x"], "x": hostile}
    names = ["slot", "default", "missing", "origin", "message", "misc", "annotations", "attachment", "context misc"]
    for name in names:
        source.copy("ada", name)
    plain = json.loads(source.slots("ada", "plain"))
    for name, field in (("slot", "extracted_value"), ("default", "default_value")):
        plain["slot_manager"]["slot_storage"]["person"]["name"] = {"is_slot_extracted": True, "extracted_value": None}
        plain["slot_manager"]["slot_storage"]["person"]["name"][field] = hostile
        source.set_main(name, framework_data=json.dumps(plain))
    plain["slot_manager"]["slot_storage"]["person"]["name"] = {"is_slot_extracted": False, "extracted_value": hostile}
    source.set_main("missing", framework_data=json.dumps(plain))
    source.set_main("context misc", misc=json.dumps(marked))
    messages: dict[str, dict[str, Any]] = {
        "origin": {"origin": {"message": hostile, "interface": "web"}},
        "message": marked,
        "misc": {"misc": marked},
        "annotations": {"annotations": marked},
        "attachment": {"attachments": [{"chatsky_attachment_type": "image", "id": "1", **marked}]},
    }
    for name, message in messages.items():
        source.set_item(name, "responses", 1, json.dumps({"text": "hi", **message}))

    taken = source.take_over()
    assert not touched.exists()
    # Not read at all: the original of a message, and why a slot is missing.
    assert taken.stdout == "dialogs: 3 taken over, 0 were here already, 7 refused\n"
    assert taken.returncode == ExitCode.FAILED
    told = taken.stderr.splitlines()
    mend = "let the bot keep text, numbers, lists or dictionaries there, and store the dialog once more"
    refused = f"it holds a {os.system.__module__}.system; {mend}"
    assert f"! 'slot': the slot 'person.name': {refused}" in told
    assert f"! 'default': the slot 'person.name', default value: {refused}" in told
    assert f"! 'message': responses[1].x: {refused}" in told
    assert f"! 'misc': responses[1].misc.x: {refused}" in told
    assert f"! 'annotations': responses[1].annotations.x: {refused}" in told
    assert f"! 'attachment': responses[1].attachments[0].x: {refused}" in told
    assert any(line.startswith("! 'context misc': ") and "__pickled_extra_fields__" in line for line in told)

    pickle.loads(base64.decodebytes(hostile.encode()))  # noqa: S301 - so the test has shown something
    assert touched.exists()


def test_plain_data_in_pickles_is_taken(source: Source) -> None:
    source.converse({"ada": ["hi"]})
    marked = {"__pickled_extra_fields__": ["x"], "x": pickled({"plain": [1, "two"]})}
    source.set_item("ada", "responses", 1, json.dumps({"text": "hi", "misc": marked}))
    source.set_main("ada", framework_data=source.slots("ada", ("a", "tuple")))
    assert source.take_over().returncode == 0


async def test_a_dialog_that_cannot_be_taken_says_which_key_and_why(source: Source, store: RedisStore) -> None:
    source.converse({"ada": ["hi", "there"]})
    faults: dict[str, tuple[str, dict[str, str | None]]] = {
        "bytes": ("the slot 'person.name': ", {"framework_data": source.slots("ada", b"raw")}),
        "keys": ("the slot 'person.name' ", {"framework_data": source.slots("ada", {1: 2})}),
        "a number": (
            "the slot 'person.name': it holds a decimal.Decimal",
            {"framework_data": source.slots("ada", Decimal(1))},
        ),
        "no turn": ("main, current_turn_id: ", {"current_turn_id": None}),
        "turn": ("main, current_turn_id: ", {"current_turn_id": "-1"}),
        "misc": ("main, misc: ", {"misc": "[]"}),
        "json": ("main, misc: ", {"misc": "{"}),
        "framework": ("main, framework_data: ", {"framework_data": '{"slot_manager": []}'}),
        "group": ("the slot 'a'", {"framework_data": '{"slot_manager": {"slot_storage": {"a": 1}}}'}),
    }
    for name, (_, fields) in faults.items():
        source.copy("ada", name)
        source.set_main(name, **fields)
    items: dict[str, tuple[str, str, int | str, str]] = {
        "label": ("labels[1]", "labels", 1, '{"flow_name": "shop"}'),
        "request": ("requests[2]", "requests", 2, '{"text": 7}'),
        "response": ("responses[2]", "responses", 2, "no json"),
        "id": ("requests, a turn id: b'two'", "requests", "two", "{}"),
        "marks": ("responses[1].__pickled_extra_fields__", "responses", 1, '{"__pickled_extra_fields__": 1}'),
        "no pickle": ("responses[1].x", "responses", 1, '{"__pickled_extra_fields__": ["x"], "x": 1}'),
    }
    for name, (_, table, turn_id, value) in items.items():
        source.copy("ada", name)
        source.set_item(name, table, turn_id, value)
    source.redis.set(f"{source.prefix}:main:text", "no hash")
    source.redis.hset(f"{source.prefix}:main:{'x' * 201}", "current_turn_id", "1")

    taken = source.take_over()
    expected = {name: begin for name, (begin, _) in faults.items()} | {name: item[0] for name, item in items.items()}
    expected |= {"text": f"the key {source.prefix}:main:text is no hash", "x" * 201: "context id "}
    assert taken.stdout == f"dialogs: 1 taken over, 0 were here already, {len(expected)} refused\n"
    for name, begin in expected.items():
        assert any(line.startswith(f"! {name!r:.200}: {begin}") for line in taken.stderr.splitlines()), name
    assert [ctx_id async for ctx_id in store.context_ids()] == ["ada"]


def test_the_list_of_refused_dialogs_is_bounded(source: Source) -> None:
    for number in range(50):
        source.redis.set(f"{source.prefix}:main:{number:02d}", "no hash")
    taken = source.take_over()
    *named, more, mend = taken.stderr.splitlines()
    assert (len(named), more) == (20, "! and 30 more")
    assert "run the same command again" in mend


async def test_interrupted_and_run_again_it_completes(source: Source, store: RedisStore, report: Report) -> None:
    total = 3_000
    source.converse({"ada": ["hi", "there", "I am Ada"] * 3})
    for number in range(total - 1):
        source.copy("ada", f"ada {number}")
    importing = source.begin_to_take_over()
    while await anext(store.context_ids(), None) is None:
        assert importing.poll() is None, importing.communicate()
        await asyncio.sleep(0.01)
    importing.send_signal(signal.SIGINT)
    out, told = importing.communicate(timeout=60)
    assert (importing.returncode, out) == (130, "")
    assert "run the same command again" in told
    here = len([ctx_id async for ctx_id in store.context_ids()])
    assert 0 < here < total

    begun = time.monotonic()
    again = source.take_over()
    assert again.stdout == f"dialogs: {total - here} taken over, {here} were here already, 0 refused\n"
    report(f"{total - here} dialogs of 9 turns in {time.monotonic() - begun:.1f} s, {here} taken before")
    assert len([ctx_id async for ctx_id in store.context_ids()]) == total
    versions = {stored.version for number in range(total - 1) if (stored := await store.peek(f"ada {number}", 1))}
    assert versions == {9}


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("http://localhost", ExitCode.USAGE, "the URL must begin with redis://"),
        ("redis+cluster://localhost:1", ExitCode.USAGE, "Chatsky's storage is on one server"),
        ("redis://127.0.0.1:1/0", ExitCode.FAILED, "Connect"),
        ("redis://:secret@127.0.0.1:1/0", ExitCode.USAGE, "there is a password in it"),
    ],
)
def test_a_source_that_cannot_be_read_is_an_error_without_its_password(
    source: Source, url: str, code: ExitCode, said: str
) -> None:
    command = [sys.executable, "-m", "worker.cli", "context", "import", url]
    ran = subprocess.run(command, cwd=ROOT, env=source.environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr
    assert "secret" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_dialogs_cannot_be_taken_to_where_nothing_is_kept(source: Source) -> None:
    environment = {**source.environment, "SWITCHBOARD_REDIS_URL": "memory://"}
    ran = subprocess.run(source.command(), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == ExitCode.USAGE
    assert "SWITCHBOARD_REDIS_URL is memory://" in ran.stderr

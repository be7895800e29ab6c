"""What Chatsky asks of a context storage: the assertions of its own tests, method by method, on ours.

Two differences are meant. Ours stores JSON and nothing else, so the values here are JSON where Chatsky's tests take any
bytes; and one context's id may be the beginning of another's, where Chatsky's own Redis storage deletes both.
"""

import asyncio
import random
from typing import Any

import pytest

from interfaces.errors import MisuseError
from interfaces.nested_loops import nested_loops_prevented
from worker.stores import ContextStore

with nested_loops_prevented():
    from chatsky import Pipeline
    from chatsky.context_storages import DBContextStorage
    from chatsky.core.ctx_utils import ContextMainInfo
    from chatsky.core.message import Message
    from chatsky.utils.testing.toy_script import HAPPY_PATH, TOY_SCRIPT_KWARGS

    from worker.chatsky.storage import TurnStorage

pytest_plugins = ["tests.conformance.store_fixtures"]

# Chatsky reads `model_fields` of an instance whenever a pipeline is made.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the 'model_fields' attribute:DeprecationWarning")

INFO = ContextMainInfo(current_turn_id=1, created_at=1, updated_at=1)
TABLES = ("labels", "requests", "responses")


@pytest.fixture
async def db(store: ContextStore) -> DBContextStorage:
    storage = TurnStorage(store)
    await storage.connect()
    return storage


@pytest.fixture
async def filled(db: DBContextStorage) -> DBContextStorage:
    """Two contexts, each with its main information and one label."""
    for ctx_id in ("1", "2"):
        await db.update_context(ctx_id, INFO, [("labels", [(0, b"0")], [])])
    return db


async def test_main_information_is_loaded_as_it_was_stored(filled: DBContextStorage) -> None:
    assert await filled.load_main_info("1") == INFO
    assert await filled.load_main_info("3") is None


async def test_main_information_of_one_context_is_updated(filled: DBContextStorage) -> None:
    new = ContextMainInfo(current_turn_id=2, created_at=1, updated_at=3, misc={"a": [1, {"b": None}]})
    await filled.update_context("1", new)
    assert await filled.load_main_info("1") == new
    assert await filled.load_main_info("2") == INFO


async def test_a_table_that_does_not_exist_is_refused(filled: DBContextStorage) -> None:
    wrong = "Invalid value 'non-existent' for argument 'field_name'."
    with pytest.raises(ValueError, match=wrong):
        await filled.load_field_latest("1", "non-existent")
    with pytest.raises(ValueError, match=wrong):
        await filled.load_field_keys("1", "non-existent")
    with pytest.raises(ValueError, match=wrong):
        await filled.load_field_items("1", "non-existent", [1, 2])
    with pytest.raises(ValueError, match=wrong):
        await filled.update_context("1", field_info=[("non-existent", [(1, b"2")], [])])


async def test_items_and_keys_are_those_of_their_table(filled: DBContextStorage) -> None:
    assert await filled.load_field_latest("1", "labels") == [(0, b"0")]
    assert set(await filled.load_field_keys("1", "labels")) == {0}
    assert await filled.load_field_latest("1", "requests") == []
    assert set(await filled.load_field_keys("1", "requests")) == set()


async def test_items_are_loaded_by_their_keys_in_order(filled: DBContextStorage) -> None:
    await filled.update_context("1", field_info=[("requests", [(1, b"1"), (3, b"3"), (2, b"2"), (4, b"4")], [])])
    assert await filled.load_field_items("1", "requests", [1, 2]) == [(1, b"1"), (2, b"2")]
    assert await filled.load_field_items("1", "requests", [4, 3]) == [(3, b"3"), (4, b"4")]


async def test_items_are_updated_and_added_and_the_latest_comes_first(filled: DBContextStorage) -> None:
    await filled.update_context("1", field_info=[("labels", [(0, b"1")], [])])
    await filled.update_context("1", field_info=[("requests", [(4, b"4")], [])])
    await filled.update_context("1", field_info=[("labels", [(2, b"2")], [])])
    assert await filled.load_field_latest("1", "labels") == [(2, b"2"), (0, b"1")]
    assert set(await filled.load_field_keys("1", "labels")) == {0, 2}
    assert await filled.load_field_latest("1", "requests") == [(4, b"4")]
    assert set(await filled.load_field_keys("1", "requests")) == {4}


async def test_partial_reads_are_by_number_by_set_and_of_all(filled: DBContextStorage) -> None:
    for key in (2, 1, 0):
        await filled.update_context("1", field_info=[("requests", [(key, b"%d" % key)], [])])
    filled._subscripts["requests"] = 2
    assert await filled.load_field_latest("1", "requests") == [(2, b"2"), (1, b"1")]
    filled._subscripts["requests"] = "__all__"
    assert await filled.load_field_latest("1", "requests") == [(2, b"2"), (1, b"1"), (0, b"0")]
    await filled.update_context("1", field_info=[("requests", [(5, b"5")], [])])
    filled._subscripts["requests"] = 2
    assert await filled.load_field_latest("1", "requests") == [(5, b"5"), (2, b"2")]
    filled._subscripts["requests"] = {5, 1}
    assert await filled.load_field_latest("1", "requests") == [(5, b"5"), (1, b"1")]


async def test_an_item_is_deleted(filled: DBContextStorage) -> None:
    await filled.update_context("1", field_info=[("labels", [], [0])])
    assert await filled.load_field_latest("1", "labels") == []
    assert await filled.load_field_keys("1", "labels") == []
    assert await filled.load_field_latest("2", "labels") == [(0, b"0")]


async def test_deleting_an_item_that_is_not_there_changes_nothing(filled: DBContextStorage) -> None:
    await filled.update_context("1", field_info=[("labels", [], [7]), ("responses", [], [0])])
    assert await filled.load_field_keys("1", "labels") == [0]
    assert await filled.load_field_keys("1", "responses") == []


async def test_keys_that_do_not_exist_are_left_out(filled: DBContextStorage) -> None:
    assert set(await filled.load_field_items("1", "labels", [0, 1])) == {(0, b"0")}
    assert set(await filled.load_field_items("1", "requests", [0])) == set()
    assert set(await filled.load_field_items("3", "requests", [0])) == set()


async def test_a_context_is_deleted_and_no_other(filled: DBContextStorage) -> None:
    beginnings = ("10", "1:1", "1*", "01")
    for ctx_id in beginnings:
        await filled.update_context(ctx_id, INFO, [("labels", [(0, b"0")], [])])
    await filled.delete_context("1")
    assert await filled.load_main_info("1") is None
    assert set(await filled.load_field_keys("1", "labels")) == set()
    for ctx_id in ("2", *beginnings):
        assert await filled.load_main_info(ctx_id) == INFO
        assert set(await filled.load_field_keys(ctx_id, "labels")) == {0}


async def test_all_is_cleared(filled: DBContextStorage) -> None:
    await filled.clear_all()
    for ctx_id in ("1", "2"):
        assert await filled.load_main_info(ctx_id) is None
        assert set(await filled.load_field_keys(ctx_id, "labels")) == set()


async def test_contexts_are_written_side_by_side(db: DBContextStorage) -> None:
    async def write(key: int) -> None:
        ctx_id, pause = str(key), random.Random(key)
        info = ContextMainInfo(current_turn_id=key, created_at=key + 1, updated_at=key, misc={ctx_id: key + 2})
        await asyncio.sleep(pause.random() / 100)
        await db.update_context(ctx_id, info)
        assert await db.load_main_info(ctx_id) == info
        for index in range(1, 20):
            changes = [(0, b"%d" % (2 * key + index)), (index, b"%d" % (key + index))]
            await db.update_context(ctx_id, field_info=[("requests", changes, [])])
            await asyncio.sleep(pause.random() / 100)
            keys = list(range(index + 1))
            assert set(await db.load_field_keys(ctx_id, "requests")) == set(keys)
            stored = dict(await db.load_field_items(ctx_id, "requests", keys))
            assert stored == {0: b"%d" % (2 * key + index)} | {n: b"%d" % (key + n) for n in keys[1:]}

    await asyncio.gather(*(write(key * 2) for key in range(3)))


async def test_one_context_is_written_side_by_side_and_nothing_is_lost(db: DBContextStorage) -> None:
    """Not among Chatsky's: its Redis storage writes field by field."""
    await db.update_context("1", INFO)
    updates: list[tuple[str, list[tuple[int, bytes]], list[int]]] = [
        (TABLES[number % 3], [(number, b"%d" % number)], []) for number in range(12)
    ]
    await asyncio.gather(*(db.update_context("1", field_info=[update]) for update in updates))
    for place, table in enumerate(TABLES):
        assert await db.load_field_keys("1", table) == list(range(place, 12, 3))


async def test_what_is_not_json_is_refused_and_changes_nothing(filled: DBContextStorage) -> None:
    with pytest.raises(MisuseError, match=r"context '1', requests\[2\]: only JSON is stored"):
        await filled.update_context("1", field_info=[("labels", [(0, b"1")], []), ("requests", [(2, b"\x00")], [])])
    assert await filled.load_field_items("1", "labels", [0]) == [(0, b"0")]
    wrong: dict[str, Any] = {"deep": [{"key": object()}]}
    with pytest.raises(ValueError, match=r"\['deep'\]\[0\]\['key'\]"):
        await filled.update_context("1", ContextMainInfo(current_turn_id=1, misc=wrong))
    assert await filled.load_main_info("1") == INFO


async def test_a_pipeline_keeps_its_dialog_in_it(db: DBContextStorage) -> None:
    pipeline = Pipeline(**TOY_SCRIPT_KWARGS, context_storage=db)
    for number, (request, response) in enumerate(HAPPY_PATH, start=1):
        context = await pipeline._run_pipeline(Message(request), "dialog")
        assert context.last_response == Message(response)
        assert context.current_turn_id == number
    assert await db.load_field_keys("dialog", "labels") == list(range(len(HAPPY_PATH) + 1))

"""Who can share a namespace with whom, as the doctor judges it; the numbers announced are those of the code."""

import typing
from base64 import b64encode
from typing import Any

import pytest

from interfaces.encryption import Keys
from interfaces.envelope import RequestBody
from interfaces.reply_bodies import Reply
from worker.cli.doctor_neighbours import clashes
from worker.formats import READS, TITLES, WRITES
from worker.members import Identity, Member
from worker.plan import Plan
from worker.records import LAYOUT, MainRecord

THIS = Identity(None).member()
OLDEST = Member(consuming=["q"], subscribed=["q"])
ONE, TWO = (f"{name}:{b64encode(name.encode() * 32).decode()}" for name in ("k1", "k2"))


def of(**changes: Any) -> Member:
    return THIS.model_copy(update=changes)


def with_keys(text: str) -> Member:
    return Identity(Keys.parse(text)).member()


def reasons(this: Member, other: Member) -> list[str]:
    return [clash.reason for clash in clashes(this, other)]


def test_workers_of_this_version_get_on() -> None:
    assert reasons(THIS, THIS) == []


def test_one_that_announced_nothing_knows_the_first_formats_alone() -> None:
    assert reasons(THIS, OLDEST) == ["does not read contexts in format 2, which this version writes"]
    assert reasons(OLDEST, THIS) == ["writes contexts in format 2, and this version reads 1"]


def test_what_a_newer_one_writes_and_this_one_cannot_read_is_a_clash() -> None:
    newer = of(writes=dict(WRITES) | {"contexts": 3}, reads={name: [1, 2, 3] for name in READS})
    assert reasons(THIS, newer) == ["writes contexts in format 3, and this version reads 1, 2"]
    assert reasons(newer, THIS) == ["does not read contexts in format 3, which this version writes"]


def test_a_newer_one_that_reads_more_and_writes_what_this_one_reads_is_none() -> None:
    bridge = of(reads={name: [1, 2, 3] for name in READS})
    assert reasons(THIS, bridge) == reasons(bridge, THIS) == []


def test_one_that_no_longer_reads_what_this_one_writes_is_a_clash() -> None:
    later = of(writes=WRITES, reads=dict(READS) | {"wire": [2], "plan": [2]})
    assert reasons(THIS, later) == [
        "does not read requests and replies in format 1, which this version writes",
        "does not read the plan of the request queues in format 1, which this version writes",
    ]


@pytest.mark.parametrize(
    ("here", "there", "found"),
    [
        (f"{ONE},plain", ONE, []),
        (f"{ONE},{TWO}", f"{TWO},{ONE}", []),
        (ONE, TWO, ["encrypts under the key 'k2'", "cannot read what is written here"]),
        (f"{ONE},{TWO}", ONE, []),
        (f"{TWO},{ONE}", ONE, ["cannot read what is written here, by a process that encrypts under the key 'k2'"]),
        (ONE, "plain", ["encrypts nothing", "cannot read what is written here"]),
    ],
)
def test_keys_clash_where_one_writes_under_what_the_other_does_not_have(
    here: str, there: str, found: list[str]
) -> None:
    told = reasons(with_keys(here), with_keys(there))
    assert len(told) == len(found)
    assert all(part in reason for part, reason in zip(found, told, strict=True))


def test_one_without_keys_clashes_with_one_that_has_them_and_says_nothing_where_it_announced_none() -> None:
    assert len(reasons(with_keys(ONE), THIS)) == 2
    announced_none = of(keys=[])
    assert reasons(with_keys(ONE), announced_none) == []


def test_a_key_itself_is_never_announced() -> None:
    said = with_keys(f"{ONE},plain").model_dump_json()
    assert '"keys":["k1","plain"]' in said
    assert ONE.partition(":")[2][:8] not in said


def test_the_numbers_announced_are_those_that_the_code_writes_and_reads() -> None:
    assert WRITES.keys() == READS.keys() == TITLES.keys()
    for body in (RequestBody, Reply):
        assert typing.get_args(body.model_fields["version"].annotation) == READS["wire"] == (WRITES["wire"],)
    assert typing.get_args(Plan.model_fields["version"].annotation) == READS["plan"] == (WRITES["plan"],)
    bounds = {type(bound).__name__: bound for bound in MainRecord.model_fields["layout"].metadata}
    assert (bounds["Ge"].ge, bounds["Le"].le) == (min(READS["contexts"]), max(READS["contexts"]))
    assert WRITES["contexts"] == LAYOUT

"""References: one string with hash and size, never mistaken for somebody else's id."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.errors import AttachmentReferenceInvalid
from interfaces.references import KEY_SHAPE, PREFIX, Reference

DIGEST = hashlib.sha256(b"bytes").hexdigest()


@given(st.binary(max_size=64), st.integers(min_value=0, max_value=10**15 - 1))
def test_a_reference_comes_back_from_its_text(data: bytes, size: int) -> None:
    reference = Reference(hashlib.sha256(data).hexdigest(), size)
    assert Reference.parse(str(reference)) == reference
    assert KEY_SHAPE.fullmatch(reference.key)


def test_the_text_carries_hash_and_size() -> None:
    assert str(Reference(DIGEST, 5)) == f"attachment:sha256:{DIGEST}:5"
    assert Reference(DIGEST, 5).key == f"sha256/{DIGEST[:2]}/{DIGEST}"


@pytest.mark.parametrize("identity", ["", "AgACAgIAAxkBAAIB", "attachment:7", "attachments:sha256:", DIGEST])
def test_an_id_of_somebody_else_is_none(identity: str) -> None:
    assert Reference.parse(identity) is None


@pytest.mark.parametrize(
    "rest",
    [
        "",
        DIGEST,
        f"{DIGEST}:",
        f"{DIGEST}:-1",
        f"{DIGEST}:05",
        f"{DIGEST}:5\n",
        f"{DIGEST}:5:5",
        f"{DIGEST}:\N{ARABIC-INDIC DIGIT FIVE}",
        f"{DIGEST}:{10**15}",
        f"{DIGEST.upper()}:5",
        f"{DIGEST[1:]}:5",
        f"../../{DIGEST[6:]}:5",
    ],
)
def test_what_begins_as_ours_and_is_not_is_an_error_that_says_what_is_expected(rest: str) -> None:
    with pytest.raises(AttachmentReferenceInvalid, match="64 hexadecimal digits, lower case>:<size in bytes> is expec"):
        Reference.parse(PREFIX + rest)


def test_the_error_does_not_repeat_a_megabyte() -> None:
    with pytest.raises(AttachmentReferenceInvalid) as caught:
        Reference.parse(PREFIX + "0" * 1_000_000)
    assert len(str(caught.value)) < 400

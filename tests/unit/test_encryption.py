"""Keys: how they are written, and what they seal and open."""

import base64
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces import Keys
from interfaces.encryption import require_plain
from interfaces.errors import DecryptionFailed, SettingsInvalid
from worker.settings import load_settings

ONE, TWO = (base64.b64encode(bytes([number]) * 64).decode() for number in (1, 2))
PLACE = ("turn", "ada", "1")


def keys(text: str) -> Keys:
    found = Keys.parse(text)
    assert found is not None
    return found


@pytest.mark.parametrize("text", ["", " ", ",", "\n", "# nothing\n"])
def test_nothing_is_no_keys(text: str) -> None:
    assert Keys.parse(text) is None


@pytest.mark.parametrize(
    ("text", "writing", "accepts_plain"),
    [
        (f"k1:{ONE}", "k1", False),
        (f"k2:{TWO},k1:{ONE}", "k2", False),
        (f" k2 : {TWO} \n# the old one\nk1:{ONE}\n".replace(" : ", ":"), "k2", False),
        (f"plain,k1:{ONE}", None, True),
        (f"k1:{ONE},plain", "k1", True),
    ],
)
def test_the_first_key_writes_and_plain_may_be_among_them(text: str, writing: str | None, accepts_plain: bool) -> None:
    found = keys(text)
    assert (found.writing, found.accepts_plain) == (writing, accepts_plain)


def test_keys_come_from_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "the keys").write_text(f"# of this year\nk1:{ONE}\nk2:{TWO}\n")
    monkeypatch.setenv("SWITCHBOARD_ENCRYPTION_KEYS_FILE", str(tmp_path / "the keys"))
    found = load_settings().keys
    assert found is not None
    assert found.writing == "k1"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hunter2", "entry 1 must be id:base64"),
        (f"k1:{ONE},hunter2", "entry 2 must be id:base64"),
        (f"{'k' * 33}:{ONE}", "entry 1 must be"),
        (f"ä:{ONE}", "entry 1 must be"),
        (f"plain:{ONE}", "'plain' is no id of a key"),
        (f"k1:{ONE},k1:{TWO}", "'k1' is there twice"),
        ("k1:hunter2!", "'k1' is not base64"),
        ("k1:" + base64.b64encode(b"hunter2").decode(), "'k1' has 7 bytes: it must have 64"),
    ],
)
def test_faults_are_named_and_no_key_is_repeated(text: str, fault: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(encryption_keys=text)
    assert "SWITCHBOARD_ENCRYPTION_KEYS: " in str(caught.value)
    assert fault in str(caught.value)
    for secret in ("hunter2", ONE, base64.b64encode(b"hunter2").decode()):
        assert secret not in str(caught.value)


def test_keys_and_settings_show_no_key() -> None:
    text = f"k1:{ONE}"
    assert ONE not in repr(keys(text)) + repr(load_settings(encryption_keys=text))
    assert load_settings(encryption_keys=text).environment == {"SWITCHBOARD_ENCRYPTION_KEYS": text}  # for its children


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(SettingsInvalid, match=r"pip install 'switchboard-bots\[encryption\]'"):
        load_settings(encryption_keys=f"k1:{ONE}")


@given(st.binary(min_size=1), st.lists(st.text(), min_size=1, max_size=4))
def test_what_is_sealed_is_opened_in_its_place(plain: bytes, place: list[str]) -> None:
    ring = keys(f"k1:{ONE}")
    sealed = ring.seal(plain, "k1", *place)
    assert ring.open(sealed, "k1", *place) == plain
    assert ring.seal(plain, "k1", *place) == sealed
    with pytest.raises(DecryptionFailed):
        ring.open(sealed, "k1", *place, "more")
    with pytest.raises(DecryptionFailed):
        ring.open(sealed, "k1", "".join(place) + "x")


def test_the_cipher_is_that_of_the_standard() -> None:
    """RFC 5297, which other languages implement: its way to split the key, and to authenticate several strings."""
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    sealed = AESSIV(base64.b64decode(ONE)).encrypt(b"plain", [b"turn", b"ada", b"1"])
    assert keys(f"k1:{ONE}").open(sealed, "k1", *PLACE) == b"plain"


def test_every_bit_that_is_changed_is_noticed() -> None:
    ring = keys(f"k1:{ONE}")
    sealed = ring.seal(b"plain", "k1", *PLACE)
    for bit in range(len(sealed) * 8):
        changed = (int.from_bytes(sealed) ^ 1 << bit).to_bytes(len(sealed))
        with pytest.raises(DecryptionFailed, match="changed or moved"):
            ring.open(changed, "k1", *PLACE)
    for cut in (b"", sealed[:-1], sealed + b"\0", os.urandom(3)):
        with pytest.raises(DecryptionFailed):
            ring.open(cut, "k1", *PLACE)


def test_another_key_opens_nothing_and_one_that_is_missing_is_named() -> None:
    sealed = keys(f"k1:{ONE}").seal(b"plain", "k1", *PLACE)
    with pytest.raises(DecryptionFailed, match="the key 'k1' in SWITCHBOARD_ENCRYPTION_KEYS is not the one"):
        keys(f"k1:{TWO}").open(sealed, "k1", *PLACE)
    with pytest.raises(DecryptionFailed, match="'k1', which is not in SWITCHBOARD_ENCRYPTION_KEYS"):
        keys(f"k2:{ONE}").open(sealed, "k1", *PLACE)


def test_plain_is_taken_where_there_are_no_keys_or_it_is_among_them() -> None:
    require_plain(None)
    require_plain(keys(f"k1:{ONE},plain"))
    with pytest.raises(DecryptionFailed, match="'plain' is not in SWITCHBOARD_ENCRYPTION_KEYS"):
        require_plain(keys(f"k1:{ONE}"))

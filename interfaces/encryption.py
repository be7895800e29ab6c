"""Authenticated encryption under one of several keys, each named by an id: what travels, and what is stored.

AES-SIV (RFC 5297): the same bytes under the same key for the same place always give the same ciphertext, so what is
repeated is repeated byte for byte, and there is no nonce to run out of. Where a ciphertext belongs is authenticated
with it, so that none can be moved elsewhere (docs/decisions/0019). Needs the extra `encryption`, imported with the
first key. Used for bodies by `interfaces.sealed_bodies`, and for contexts by the worker's `SealedStore`.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final, Self

from interfaces.errors import DecryptionFailed

SETTING: Final = "SWITCHBOARD_ENCRYPTION_KEYS"

PLAIN: Final = "plain"
"""Stands in the place of a key: nothing is encrypted by it, and what is not encrypted is accepted."""

KEY_BYTES: Final = 64
"""AES-SIV takes two keys of AES-256 as one."""

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Keys:
    """Keys by id, 64 random bytes each. The first one writes, all of them read; `PLAIN` may be among them, or first.

    Raises `ValueError` for an id or a key that cannot be one, and where the library is missing.
    """

    def __init__(self, keys: Mapping[str, bytes | None]) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESSIV
        except ImportError:
            raise ValueError(
                "the library for encryption is missing: pip install 'switchboard-bots[encryption]'"
            ) from None
        for key_id, key in keys.items():
            if not _ID.fullmatch(key_id) or (key is None) != (key_id == PLAIN):
                raise ValueError(f"{key_id!r} is no id of a key: 1 to 32 of A-Z a-z 0-9 _ -, and not {PLAIN!r}")
            if key is not None and len(key) != KEY_BYTES:
                raise ValueError(f"key {key_id!r} has {len(key)} bytes: it must have {KEY_BYTES}, in base64")
        self._ciphers = {key_id: AESSIV(key) for key_id, key in keys.items() if key is not None}
        self.ids: Final = tuple(keys)
        """As they stand in the setting, `PLAIN` among them."""
        self.accepts_plain: Final = PLAIN in keys
        """Whether what is not encrypted is taken."""
        first = next(iter(keys), PLAIN)
        self.writing: Final = None if first == PLAIN else first
        """Id of the key that encrypts; `None` where nothing is encrypted yet."""

    def __repr__(self) -> str:
        return f"Keys({', '.join(self._ciphers)})"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The setting: `id:base64` separated by commas or line breaks; `None` where there are none.

        Raises `ValueError`, which repeats no key.
        """
        entries = [entry.strip() for line in text.splitlines() if not line.startswith("#") for entry in line.split(",")]
        keys: dict[str, bytes | None] = {}
        for number, entry in enumerate(filter(None, entries), start=1):
            key_id, colon, encoded = entry.partition(":")
            if entry != PLAIN and (not colon or not _ID.fullmatch(key_id)):
                raise ValueError(
                    f"entry {number} must be id:base64, or {PLAIN!r}: an id has 1 to 32 of A-Z a-z 0-9 _ -"
                )
            if key_id in keys:
                raise ValueError(f"the id {key_id!r} is there twice")
            keys[key_id] = None if entry == PLAIN else _decode(key_id, encoded)
        return cls(keys) if keys else None

    def seal(self, plain: bytes, key_id: str, *place: str) -> bytes:
        """Encrypt `plain` under a key for a place: what it is, whose, and which one."""
        return self._ciphers[key_id].encrypt(plain, [part.encode() for part in place])

    def open(self, sealed: bytes, key_id: str, *place: str) -> bytes:
        """What was sealed for this place. Raises `DecryptionFailed`."""
        from cryptography.exceptions import InvalidTag

        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise DecryptionFailed(f"it is encrypted under the key {key_id[:32]!r}, which is not in {SETTING}")
        try:
            return cipher.decrypt(sealed, [part.encode() for part in place])
        except InvalidTag:
            raise DecryptionFailed(
                f"it was changed or moved, or the key {key_id!r} in {SETTING} is not the one it was encrypted under"
            ) from None


def require_plain(keys: Keys | None) -> None:
    """Raise `DecryptionFailed` where something that is not encrypted must not be taken."""
    if keys is not None and not keys.accepts_plain:
        raise DecryptionFailed(f"it is not encrypted, and {PLAIN!r} is not in {SETTING}")


def _decode(key_id: str, encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"key {key_id!r} is not base64") from None

"""Encrypted bodies on the wire: a request's or a reply's whole body, sealed, in one with the ids that routing needs.

    {"version": 1, "ctx_id": "ada", "sealed": {"key": "k1", "data": "<base64>"}}

A reply has its `request_id` beside. Each is bound to its context and request, so no body can stand in another's place.
An answer goes out under the key that it was asked by. Called where requests and replies are encoded and decoded.
"""

import base64
from dataclasses import dataclass
from typing import Any, Final

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from interfaces.encryption import SETTING, Keys, require_plain
from interfaces.errors import DecryptionFailed

SEALED: Final = "sealed"

REQUEST: Final = "request"
REPLY: Final = "reply"


class _Sealed(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: str = Field(min_length=1, max_length=32)
    data: Base64Bytes


class _Body(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    ctx_id: str
    request_id: str = ""
    sealed: _Sealed


@dataclass(frozen=True, slots=True)
class Opened:
    """A body that came encrypted, and under which key."""

    keys: Keys
    key_id: str
    ctx_id: str
    body: bytes
    """In plain."""

    def seal_reply(self, reply: bytes, request_id: str) -> bytes:
        """The body of the reply to this request: the same for the same reply."""
        about = {"ctx_id": self.ctx_id, "request_id": request_id}
        return _write(about, self.keys.seal(reply, self.key_id, REPLY, self.ctx_id, request_id), self.key_id)


def seal_request(body: bytes, ctx_id: str, request_id: str, keys: Keys | None) -> bytes:
    """The body of a request as it travels: as it is where nothing is to be encrypted."""
    if keys is None or keys.writing is None:
        return body
    return _write({"ctx_id": ctx_id}, keys.seal(body, keys.writing, REQUEST, ctx_id, request_id), keys.writing)


def open_request(body: bytes, request_id: str, keys: Keys) -> Opened | None:
    """A request in plain, `None` where it is plain already. Raises `DecryptionFailed`."""
    found = _read(body)
    if found is None:
        require_plain(keys)
        return None
    place = REQUEST, found.ctx_id, request_id
    return Opened(keys, found.sealed.key, found.ctx_id, keys.open(found.sealed.data, found.sealed.key, *place))


def request_in_plain(body: bytes, request_id: str, keys: Keys | None) -> bytes:
    """A request for an operator to read, itself where it is plain. Raises `DecryptionFailed`."""
    found = _read(body)
    if found is None:
        return body
    if keys is None:
        raise DecryptionFailed(f"it is encrypted, and {SETTING} is not set here")
    return keys.open(found.sealed.data, found.sealed.key, REQUEST, found.ctx_id, request_id)


def reseal_request(body: bytes, request_id: str, new_id: str, keys: Keys | None) -> bytes:
    """The same request under another id and the same key. Raises `DecryptionFailed`."""
    plain, found = request_in_plain(body, request_id, keys), _read(body)
    if found is None or keys is None:
        return body
    key_id, ctx_id = found.sealed.key, found.ctx_id
    return _write({"ctx_id": ctx_id}, keys.seal(plain, key_id, REQUEST, ctx_id, new_id), key_id)


def open_reply(body: bytes, keys: Keys) -> bytes | None:
    """A reply in plain, `None` where it is plain already, which is for the caller to judge. Raises
    `DecryptionFailed`."""
    found = _read(body)
    if found is None:
        return None
    return keys.open(found.sealed.data, found.sealed.key, REPLY, found.ctx_id, found.request_id)


def is_sealed(raw: Any) -> bool:
    """Whether parsed JSON is an encrypted body."""
    return isinstance(raw, dict) and SEALED in raw


def _read(body: bytes) -> _Body | None:
    try:
        raw = from_json(body)
    except ValueError:
        return None  # Whoever reads it as plain will say what is wrong.
    if not is_sealed(raw):
        return None
    try:
        return _Body.model_validate(raw)
    except ValidationError:
        raise DecryptionFailed("it is encrypted in no form of this version") from None


def _write(about: dict[str, str], sealed: bytes, key_id: str) -> bytes:
    return to_json({"version": 1, **about, SEALED: {"key": key_id, "data": base64.b64encode(sealed).decode()}})

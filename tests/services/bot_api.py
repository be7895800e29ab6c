"""A Telegram Bot API server on the loopback interface, and the users who write to its one bot.

What the bot sends is kept as it came, files included. Whoever calls with another token is refused. It answers the
methods that Chatsky's Telegram interfaces use; any other is refused as unknown, as Telegram does.
"""

import asyncio
import hashlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

from tests.services.servers import free_port

TOKEN = "123456:TEST-token"  # noqa: S105 - of a server that only this process knows
SERVER, DIRECTORY, PORT = "TEST_BOT_API", "TEST_BOT_DIRECTORY", "TEST_WEBHOOK_PORT"
"""Environment variables that tell an interface where the server is, where to keep files, and where to listen."""

BOT = {"id": 123456, "is_bot": True, "first_name": "Switch", "username": "switch_bot"}

SENDING = frozenset(
    {
        "sendMessage", "sendPhoto", "sendDocument", "sendVoice", "sendAudio", "sendVideo", "sendAnimation",
        "sendVideoNote", "sendSticker", "sendLocation", "sendContact", "sendPoll",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sent:
    """One message of the bot."""

    method: str
    chat: int
    fields: dict[str, str]
    files: dict[str, bytes] = field(repr=False)

    @property
    def file(self) -> bytes:
        """Its one file."""
        (data,) = self.files.values()
        return data

    def attached(self, media: dict[str, str]) -> bytes:
        """The file of one member of its media group."""
        return self.files[media["media"].removeprefix("attach://")]


class BotApi:
    """The server, and its users' side. Use it as `async with BotApi() as api`."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.url = f"http://127.0.0.1:{free_port()}"
        self.sent: list[Sent] = []
        self.calls: Counter[str] = Counter()
        self.webhook: str | None = None
        self.failing: Callable[[str], bool] = lambda _: False
        """Which methods are answered with an error of the server."""
        self._updates: list[dict[str, Any]] = []
        self._files: dict[str, bytes] = {}
        self._ids = itertools.count(1)
        self._changed = asyncio.Condition()
        self._server: HTTPServer | None = None

    async def __aenter__(self) -> Self:
        application = Application(
            [
                (r"/bot([^/]+)/(\w+)", _Methods, {"api": self}),
                (r"/file/bot([^/]+)/(.+)", _Files, {"api": self}),
            ]
        )
        self._server = HTTPServer(application)
        self._server.listen(int(self.url.rpartition(":")[2]), "127.0.0.1")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.stop()
        await self._server.close_all_connections()

    def file(self, data: bytes) -> dict[str, Any]:
        """Upload a file as a user does; what a message says of it."""
        file_id = f"file-{next(self._ids)}-{hashlib.sha256(data).hexdigest()[:8]}"
        self._files[file_id] = data
        return {"file_id": file_id, "file_unique_id": file_id, "file_size": len(data)}

    async def say(self, chat: int, text: str | None = None, **content: Any) -> None:
        """Send a message of the user of `chat`: its text, or content such as `document={"file_id": ...}`."""
        number = next(self._ids)
        message = _message(number, chat) | ({} if text is None else {"text": text}) | content
        await self._update(number, {"message": message})

    async def press(self, chat: int, data: str) -> None:
        """Press a button that carries `data`."""
        number = next(self._ids)
        query = {"id": str(number), "from": _user(chat), "chat_instance": "1", "data": data}
        await self._update(number, {"callback_query": query | {"message": _message(number, chat)}})

    async def received(self, chat: int, count: int, seconds: float = 60) -> list[Sent]:
        """The first `count` messages of the bot to `chat`, once they are there."""

        def found() -> list[Sent]:
            return [sent for sent in self.sent if sent.chat == chat]

        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: len(found()) >= count)
        except TimeoutError:
            raise AssertionError(f"{count} messages to chat {chat} awaited, there were {found()}") from None
        return found()[:count]

    async def unconfirmed(self) -> list[int]:
        """Updates that the bot would get again."""
        async with self._changed:
            return [update["update_id"] for update in self._updates]

    async def _update(self, number: int, content: dict[str, Any]) -> None:
        update = {"update_id": number, **content}
        if self.webhook is not None:
            headers = {"Content-Type": "application/json"}
            await AsyncHTTPClient().fetch(self.webhook, method="POST", headers=headers, body=json.dumps(update))
            return
        async with self._changed:
            self._updates.append(update)
            self._changed.notify_all()

    # What the bot calls.

    async def answer(self, method: str, fields: dict[str, str], files: dict[str, bytes]) -> Any:
        self.calls[method] += 1
        if self.failing(method):
            raise HTTPError(502)
        if method in SENDING:
            return await self._keep(method, fields, files)
        if method == "sendMediaGroup":
            await self._keep(method, fields, files)
            return [_message(next(self._ids), int(fields["chat_id"])) for _ in json.loads(fields["media"])]
        if method == "getUpdates":
            return await self._updates_from(int(fields.get("offset", 0)), float(fields.get("timeout", 0)))
        if method == "getFile":
            return self._file(fields["file_id"])
        if method == "getMe":
            return BOT
        if method in ("setWebhook", "deleteWebhook"):
            self.webhook = fields.get("url") or None
            return True
        if method in ("answerCallbackQuery", "getWebhookInfo"):
            return True
        raise HTTPError(404)

    async def _keep(self, method: str, fields: dict[str, str], files: dict[str, bytes]) -> dict[str, Any]:
        chat = int(fields["chat_id"])
        async with self._changed:
            self.sent.append(Sent(method, chat, fields, files))
            self._changed.notify_all()
        return _message(next(self._ids), chat)

    async def _updates_from(self, offset: int, seconds: float) -> list[dict[str, Any]]:
        # An offset confirms everything before it.
        self._updates = [update for update in self._updates if update["update_id"] >= offset]
        async with self._changed:
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(lambda: self._updates)
            except TimeoutError:
                pass
        return self._updates[:100]

    def _file(self, file_id: str) -> dict[str, Any]:
        if file_id not in self._files:
            raise HTTPError(400, reason="Bad Request: invalid file_id")
        size = len(self._files[file_id])
        return {"file_id": file_id, "file_unique_id": file_id, "file_size": size, "file_path": file_id}

    def content(self, path: str) -> bytes:
        """What a file path of `getFile` leads to."""
        return self._files[path]


class _Handler(RequestHandler):
    def initialize(self, api: BotApi) -> None:
        self.api = api

    def refuse_strangers(self, token: str) -> None:
        if token != self.api.token:
            raise HTTPError(401, reason="Unauthorized")

    def write_error(self, status_code: int, **_: Any) -> None:
        self.finish({"ok": False, "error_code": status_code, "description": self._reason})


class _Methods(_Handler):
    async def post(self, token: str, method: str) -> None:
        self.refuse_strangers(token)
        fields = {name: self.get_body_argument(name) for name in self.request.body_arguments}
        files = {name: file.body for name, [file] in self.request.files.items()}
        self.finish({"ok": True, "result": await self.api.answer(method, fields, files)})

    get = post


class _Files(_Handler):
    async def get(self, token: str, path: str) -> None:
        self.refuse_strangers(token)
        self.finish(self.api.content(path))


def _user(chat: int) -> dict[str, Any]:
    return {"id": chat, "is_bot": False, "first_name": f"User {chat}"}


def _message(number: int, chat: int) -> dict[str, Any]:
    whose = {"chat": {"id": chat, "type": "private", "first_name": f"User {chat}"}, "from": _user(chat)}
    return {"message_id": number, "date": int(time.time()), **whose}

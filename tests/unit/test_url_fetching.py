"""Fetching what a stranger's URL names, from real servers on this machine that do what servers must not."""

import asyncio
import gzip
import io
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from interfaces import url_fetching
from interfaces.allowed_hosts import parse_allowed
from interfaces.errors import AttachmentMissing, AttachmentTooLarge, AttachmentUrlRefused
from interfaces.public_addresses import is_public
from interfaces.url_fetching import FetchRules, fetch_url, resolve
from tests.services.web_server import Trusted, WebServer, Wiring, answer

DATA = b"a picture" * 1000
PUBLIC = "93.184.215.14"
URL = "https://files.example.org/picture?size=1"
ALLOWED = "files.example.org, other.example.org, http://plain.example.org"


class Names:
    """A resolver of the test: each look-up of a name gives its next answer, the last one for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self._answers = {name.replace("_", "."): answer for name, answer in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self._answers.get(host, [[PUBLIC]])
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trusted:
    authority = Trusted(tmp_path)
    monkeypatch.setattr(url_fetching, "_tls", lambda: authority.trusting)
    return authority


@pytest.fixture
async def server(authority: Trusted) -> AsyncIterator[WebServer]:
    async with WebServer(authority.server("files.example.org")) as server:
        server.handlers["/picture?size=1"] = answer(DATA)
        yield server


@pytest.fixture
def wiring(server: WebServer) -> Wiring:
    return Wiring({443: server.port})


async def fetch(
    wiring: Wiring, names: Names | None = None, *, url: str = URL, max_bytes: int = 100_000, seconds: float = 10
) -> bytes:
    into = io.BytesIO()
    rules = FetchRules(parse_allowed(ALLOWED), seconds, names or Names(), wiring)
    size = await fetch_url(url, rules, into, max_bytes=max_bytes)
    assert size == len(into.getvalue())
    return into.getvalue()


async def test_a_file_is_fetched_by_its_name_over_a_connection_to_its_address(
    server: WebServer, wiring: Wiring
) -> None:
    assert await fetch(wiring, max_bytes=len(DATA)) == DATA
    assert wiring.connected == [(PUBLIC, 443)]
    (request,) = server.requests
    assert request.startswith("GET /picture?size=1 HTTP/1.1\r\n")
    assert "host: files.example.org\r\n" in request.lower()
    assert "accept-encoding: identity\r\n" in request.lower()


async def test_the_own_network_of_the_library_connects_to_that_address_too(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(url_fetching, "is_public", lambda address: address == "127.0.0.1")
    rules = FetchRules(
        parse_allowed(f"files.example.org:{server.port}"), resolve=Names(files_example_org=[["127.0.0.1"]])
    )
    into = io.BytesIO()
    await fetch_url(f"https://files.example.org:{server.port}/picture?size=1", rules, into, max_bytes=100_000)
    assert into.getvalue() == DATA


async def test_a_certificate_for_another_name_is_refused(wiring: Wiring, server: WebServer) -> None:
    with pytest.raises(AttachmentMissing, match=r"https://other.example.org:443 did not give .*[Hh]ostname mismatch"):
        await fetch(wiring, url="https://other.example.org/picture?size=1")
    assert wiring.connected == [(PUBLIC, 443)]
    assert server.requests == []


async def test_a_certificate_of_an_authority_nobody_trusts_is_refused(wiring: Wiring, tmp_path: Path) -> None:
    (tmp_path / "forger").mkdir()
    async with WebServer(Trusted(tmp_path / "forger").server("files.example.org")) as forger:
        with pytest.raises(AttachmentMissing, match="certificate verify failed"):
            await fetch(Wiring({443: forger.port}))
        assert forger.requests == []


@pytest.mark.parametrize(
    "answers",
    [["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["::1"], ["::ffff:127.0.0.1"], [PUBLIC, "192.168.0.1"], []],
    ids=lambda answers: " ".join(answers) or "none",
)
async def test_a_name_with_an_address_inside_is_never_connected_to(wiring: Wiring, answers: list[str]) -> None:
    with pytest.raises(AttachmentUrlRefused, match="its address is not on the public internet"):
        await fetch(wiring, Names(files_example_org=[answers]))
    assert wiring.connected == []


async def test_a_name_that_answers_differently_the_second_time_gains_nothing(server: WebServer, wiring: Wiring) -> None:
    names = Names(files_example_org=[[PUBLIC], ["127.0.0.1"]])
    assert await fetch(wiring, names) == DATA
    assert names.asked == ["files.example.org"]
    assert wiring.connected == [(PUBLIC, 443)]
    with pytest.raises(AttachmentUrlRefused):  # the second answer was there to be given
        await fetch(wiring, names)


async def test_a_name_that_answers_differently_at_a_redirect_gains_nothing(server: WebServer, wiring: Wiring) -> None:
    server.handlers["/picture?size=1"] = answer(status=302, location="/inside")
    server.handlers["/inside"] = answer(b"secret")
    with pytest.raises(AttachmentUrlRefused, match="not on the public internet"):
        await fetch(wiring, Names(files_example_org=[[PUBLIC], ["127.0.0.1"]]))
    assert len(server.requests) == 1
    assert wiring.connected == [(PUBLIC, 443)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_where_they_lead_to_an_allowed_host(
    server: WebServer, wiring: Wiring, status: int
) -> None:
    server.handlers["/picture?size=1"] = answer(status=status, location="/b/../moved")
    server.handlers["/moved"] = answer(DATA)
    assert await fetch(wiring) == DATA


@pytest.mark.parametrize(
    "location",
    [
        "https://127.0.0.1/",
        "http://localhost/",
        "https://[::1]/",
        "http://files.example.org/",
        "https://evil.com/",
        "https://files.example.org:8443/",
        "https://user:hunter2@files.example.org/",
        "file:///etc/passwd",
        "//evil.com/",
        "https://[bad/",
        "\x00",
    ],
)
async def test_a_redirect_to_anywhere_else_is_refused(server: WebServer, wiring: Wiring, location: str) -> None:
    server.handlers["/picture?size=1"] = answer(status=302, location=location)
    with pytest.raises((AttachmentUrlRefused, AttachmentMissing)) as caught:
        await fetch(wiring)
    assert "hunter2" not in str(caught.value)
    assert len(wiring.connected) == len(server.requests) == 1


async def test_redirects_come_to_an_end(server: WebServer, wiring: Wiring) -> None:
    server.handlers["/picture?size=1"] = answer(status=302, location="/picture?size=1")
    with pytest.raises(AttachmentMissing, match="redirected more than 5 times"):
        await fetch(wiring)
    assert len(server.requests) == url_fetching.MAX_REDIRECTS + 1


async def test_a_body_that_drips_is_ended_by_the_time_limit(server: WebServer, wiring: Wiring) -> None:
    dripped: list[int] = []

    async def drip(writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        for number in range(100_000):
            writer.write(b"x")
            await writer.drain()
            dripped.append(number)
            await asyncio.sleep(0.02)

    server.handlers["/picture?size=1"] = drip
    with pytest.raises(AttachmentMissing, match=r"within 0.5 seconds \(SWITCHBOARD_FETCH_TIMEOUT\)"):
        await fetch(wiring, seconds=0.5)
    assert 1 < len(dripped) < 1000


async def test_the_time_limit_is_one_for_all_redirects_together(server: WebServer, wiring: Wiring) -> None:
    async def slow(writer: asyncio.StreamWriter, path: str) -> None:
        await asyncio.sleep(0.2)
        await answer(status=302, location=URL)(writer, path)

    server.handlers["/picture?size=1"] = slow
    with pytest.raises(AttachmentMissing, match=r"within 0.5 seconds"):
        await fetch(wiring, seconds=0.5)
    assert 2 <= len(server.requests) < 5


async def test_a_name_server_that_does_not_answer_is_ended_by_it_too(wiring: Wiring) -> None:
    class Silent(Names):
        async def __call__(self, host: str, port: int) -> Sequence[str]:
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.raises(AttachmentMissing, match=r"within 0.1 seconds"):
        await fetch(wiring, Silent(), seconds=0.1)


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "until the connection closes"])
async def test_a_body_without_end_is_ended_by_the_size_limit(server: WebServer, wiring: Wiring, chunked: bool) -> None:
    written: list[int] = []

    async def endless(writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + (b"transfer-encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
        while True:
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n" if chunked else b"x" * 1024)
            await writer.drain()
            written.append(1024)

    server.handlers["/picture?size=1"] = endless
    into = io.BytesIO()
    rules = FetchRules(parse_allowed(ALLOWED), 10, Names(), wiring)
    with pytest.raises(AttachmentTooLarge, match="more than 100000 bytes"):
        await fetch_url(URL, rules, into, max_bytes=100_000)
    assert len(into.getvalue()) <= 100_000 < sum(written)


async def test_a_body_announced_to_be_too_large_is_not_read(server: WebServer, wiring: Wiring) -> None:
    server.handlers["/picture?size=1"] = answer(DATA, content_length="100001")
    with pytest.raises(AttachmentTooLarge):
        await fetch(wiring)


async def test_a_body_shorter_than_announced_is_no_file(server: WebServer, wiring: Wiring) -> None:
    server.handlers["/picture?size=1"] = answer(DATA, content_length=str(len(DATA) + 1))
    with pytest.raises(AttachmentMissing, match="did not give an attachment"):
        await fetch(wiring)


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
async def test_what_comes_compressed_is_refused_before_its_body(
    server: WebServer, wiring: Wiring, encoding: str
) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < 100_000
    server.handlers["/picture?size=1"] = answer(bomb, content_encoding=encoding)
    with pytest.raises(AttachmentUrlRefused, match="compressed"):
        await fetch(wiring)
    assert server.requests


@pytest.mark.parametrize("status", [204, 206, 304, 401, 404, 500])
async def test_another_status_is_no_file(server: WebServer, wiring: Wiring, status: int) -> None:
    server.handlers["/picture?size=1"] = answer(b"", status)
    with pytest.raises(AttachmentMissing, match=f"answered with status {status}"):
        await fetch(wiring)


async def test_headers_without_end_are_ended(server: WebServer, wiring: Wiring) -> None:
    async def endless(writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x: " + b"y" * 1000 + b"\r\n")
            await writer.drain()

    server.handlers["/picture?size=1"] = endless
    with pytest.raises(AttachmentMissing, match="did not give an attachment"):
        await fetch(wiring)


async def test_what_is_no_http_is_no_file(server: WebServer, wiring: Wiring) -> None:
    async def other(writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    server.handlers["/picture?size=1"] = other
    with pytest.raises(AttachmentMissing, match="did not give an attachment"):
        await fetch(wiring)


async def test_the_next_address_of_a_name_is_tried_where_one_refuses(server: WebServer, wiring: Wiring) -> None:
    wiring.dead.add("2606:4700::1111")
    assert await fetch(wiring, Names(files_example_org=[["2606:4700::1111", PUBLIC]])) == DATA
    assert [address for address, _ in wiring.connected] == ["2606:4700::1111", PUBLIC]
    wiring.dead.add(PUBLIC)
    with pytest.raises(AttachmentMissing, match="refused"):
        await fetch(wiring)


async def test_without_tls_only_where_the_list_says_so() -> None:
    async with WebServer() as server:
        server.handlers["/"] = answer(DATA)
        wiring = Wiring({80: server.port})
        assert await fetch(wiring, url="http://plain.example.org") == DATA
        with pytest.raises(AttachmentUrlRefused):
            await fetch(wiring, url="http://files.example.org")
        assert len(server.requests) == 1


async def test_a_cancelled_fetch_leaves_no_connection(server: WebServer, wiring: Wiring) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def wait(writer: asyncio.StreamWriter, _: str) -> None:
        asked.set()
        with suppress(OSError):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not writer.transport.is_closing():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        closed.set()

    server.handlers["/picture?size=1"] = wait
    fetching = asyncio.create_task(fetch(wiring))
    async with asyncio.timeout(5):
        await asked.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        await closed.wait()


async def test_the_resolver_of_the_machine_gives_addresses_alone() -> None:
    found = await resolve("localhost", 80)
    assert found
    assert not any(map(is_public, found))


async def test_a_name_without_an_address_is_no_file(wiring: Wiring) -> None:
    class Unknown(Names):
        async def __call__(self, host: str, port: int) -> Sequence[str]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(AttachmentMissing, match=r"cannot be resolved: .*Name or service not known"):
        await fetch(wiring, Unknown())

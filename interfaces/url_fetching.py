"""Fetches the file behind a URL that came from a stranger, and nothing that the stranger should not reach by it.

Each hop, the first and every redirect, is checked alike: the allow list, then the addresses of its name, which is
resolved once; the connection is made to one of those very addresses, so a name that answers differently the next time
gains nothing (docs/decisions/0018). Time and size are bounded by what arrives, never by what a server announces.
Called by the attachment transfer.
"""

import asyncio
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import urljoin

from interfaces.allowed_hosts import AllowedHost, Target, allowed_target
from interfaces.errors import AttachmentMissing, AttachmentTooLarge, AttachmentUrlRefused
from interfaces.public_addresses import is_public

if TYPE_CHECKING:
    import httpcore

MAX_REDIRECTS: Final = 5

CONNECT_SECONDS: Final = 5.0
"""For one address of a name, so that the next one gets its turn within the time for all."""

PIECE_BYTES: Final = 256 * 1024

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The IP addresses of a name. Raises `OSError` where it has none."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses that the machine's resolver gives, in the order in which they are to be tried."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True)
class FetchRules:
    """What may be fetched.

    :param seconds: for all of one fetch, redirects included.
    :param resolve: asked once for each hop.
    :param network: makes connections to the addresses it is given; httpcore's own where not given.
    """

    allowed: tuple[AllowedHost, ...] = ()
    seconds: float = 30.0
    resolve: Resolve = field(default=resolve, repr=False)
    network: "httpcore.AsyncNetworkBackend | None" = field(default=None, repr=False)


async def fetch_url(url: str, rules: FetchRules, into: BinaryIO, *, max_bytes: int) -> int:
    """Write the file behind `url` to `into`; how many bytes it has.

    Raises `AttachmentUrlRefused` for a URL, or a redirect, that leads where nothing may be fetched from,
    `AttachmentTooLarge` beyond `max_bytes`, and `AttachmentMissing` where the server does not give it in time.
    """
    target = allowed_target(url, rules.allowed)
    try:
        async with asyncio.timeout(rules.seconds):
            for _ in range(MAX_REDIRECTS + 1):
                outcome = await _ask(target, rules, into, max_bytes)
                if isinstance(outcome, int):
                    return outcome
                target = allowed_target(outcome, rules.allowed)
    except TimeoutError:
        raise AttachmentMissing(
            f"{target} did not give an attachment within {rules.seconds:g} seconds (SWITCHBOARD_FETCH_TIMEOUT)"
        ) from None
    raise AttachmentMissing(f"an attachment's URL was redirected more than {MAX_REDIRECTS} times, last to {target}")


async def _ask(target: Target, rules: FetchRules, into: BinaryIO, max_bytes: int) -> int | str:
    """One hop: the size of the file, now written, or the URL that the server sends to."""
    import httpcore  # Only those who allow a host pay for its import.

    network: Any = _Pinned(await _public_addresses(target, rules.resolve), rules.network or httpcore.AnyIOBackend())
    tls = await asyncio.to_thread(_tls)
    url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
    # Compressed, a few bytes could become any number: what comes compressed all the same is refused.
    headers = [("Accept", "*/*"), ("Accept-Encoding", "identity"), ("User-Agent", "switchboard")]
    try:
        async with (
            httpcore.AsyncConnectionPool(ssl_context=tls, max_connections=1, network_backend=network) as pool,
            pool.stream("GET", url, headers=headers, extensions={"timeout": {"connect": CONNECT_SECONDS}}) as response,
        ):
            found = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in _REDIRECTS:
                return urljoin(target.url, found.get(b"location", ""))
            _check(target, response.status, found, max_bytes)
            return await _write(response.aiter_stream(), into, max_bytes)
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ValueError) as error:
        raise AttachmentMissing(f"{target} did not give an attachment: {str(error) or type(error).__name__}") from error


async def _public_addresses(target: Target, resolve: Resolve) -> Sequence[str]:
    try:
        addresses = await resolve(target.host, target.port)
    except (OSError, UnicodeError) as error:
        raise AttachmentMissing(f"the name of {target} cannot be resolved: {error}") from error
    # One that is not public condemns all: a name with both kinds of answer is how the check is led around.
    inside = [address for address in addresses if not is_public(address)]
    if inside or not addresses:
        raise AttachmentUrlRefused(
            f"attachments are not fetched from {target}: its address is not on the public internet"
        )
    return addresses


class _Pinned:
    """httpcore's network backend that connects to the addresses which were checked, and never resolves a name.

    TLS is not its business: httpcore verifies the certificate against the host of the URL, whatever is connected to.
    """

    def __init__(self, addresses: Iterable[str], network: "httpcore.AsyncNetworkBackend") -> None:
        self._addresses = addresses
        self._network = network

    async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> "httpcore.AsyncNetworkStream":
        """A connection to the first address that takes one; `host` is not looked at."""
        import httpcore

        failure: Exception = httpcore.ConnectError("no address")
        for address in self._addresses:
            try:
                return await self._network.connect_tcp(address, port, *args, **options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


@functools.cache
def _tls() -> ssl.SSLContext:
    """With the certificates this machine trusts; `SSL_CERT_FILE` names others. Reading them takes some 20 ms."""
    return ssl.create_default_context()


def _check(target: Target, status: int, headers: dict[bytes, str], max_bytes: int) -> None:
    if status != 200:
        raise AttachmentMissing(f"{target} answered with status {status} instead of an attachment")
    encoding = headers.get(b"content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise AttachmentUrlRefused(f"{target} sends an attachment compressed ({encoding[:40]!r}), which is not taken")
    announced = headers.get(b"content-length", "")
    if announced.isdigit() and int(announced[:20]) > max_bytes:
        raise _too_large(max_bytes)


async def _write(pieces: AsyncIterator[bytes], into: BinaryIO, max_bytes: int) -> int:
    size, held = 0, bytearray()
    async for piece in pieces:
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes)
        held += piece
        if len(held) >= PIECE_BYTES:
            await asyncio.to_thread(into.write, bytes(held))
            held.clear()
    await asyncio.to_thread(into.write, bytes(held))
    return size


def _too_large(max_bytes: int) -> AttachmentTooLarge:
    return AttachmentTooLarge(
        f"the file behind an attachment's URL has more than {max_bytes} bytes: send a smaller one, or raise "
        "SWITCHBOARD_ATTACHMENTS_MAX_BYTES on every edge and worker"
    )

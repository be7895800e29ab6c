"""The allow list of hosts that attachments may be fetched from, and what of a URL is looked at before anybody connects.

A URL is read once, by the parser that browsers have (WHATWG's), and everything after it works with the parts it gave:
two parsers that see different hosts in one URL are an old way around such lists. Used by the fetching of URLs and by
the settings.
"""

import re
from dataclasses import dataclass
from typing import Final

from pydantic import HttpUrl, TypeAdapter, ValidationError

from interfaces.errors import AttachmentUrlRefused

SETTING: Final = "SWITCHBOARD_FETCH_FROM"

_PORTS: Final = {"https": 443, "http": 80}

_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_ENTRY: Final = re.compile(
    rf"(?:(?P<scheme>https?)://)?(?P<wildcard>\*\.)?(?P<host>{_LABEL}(\.{_LABEL})+)(?::(?P<port>[0-9]{{1,5}}))?",
    re.ASCII,
)

_URL: Final = TypeAdapter(HttpUrl)


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """A host, or all below it where `below`, with the one scheme and the one port that it may be asked on."""

    scheme: str
    host: str
    port: int
    below: bool

    def covers(self, target: "Target") -> bool:
        """Whether `target` may be asked."""
        if (target.scheme, target.port) != (self.scheme, self.port):
            return False
        return target.host.endswith("." + self.host) if self.below else target.host == self.host


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be asked of whom: the parts of a URL that is allowed."""

    scheme: str
    host: str
    port: int
    path: str
    """With the query."""

    def __str__(self) -> str:
        """For logs and errors: without path and query, which may be credentials."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole of it."""
        return f"{self}{self.path}"


def parse_allowed(text: str) -> tuple[AllowedHost, ...]:
    """The list as the setting has it, entries separated by commas. Raises `ValueError`, which names the entry."""
    return tuple(_entry(part.strip().lower()) for part in text.split(",") if part.strip())


def _entry(text: str) -> AllowedHost:
    match = _ENTRY.fullmatch(text)
    # The last label of a name is never a number: such a host is an IPv4 address to every parser of URLs.
    if match is None or re.fullmatch(r"[0-9]+|0x[0-9a-f]*", match["host"].rpartition(".")[2]):
        raise ValueError(
            f"{text!r} is no host to fetch from: write example.org, *.example.org for all hosts below it, with another "
            "port example.org:8443, without TLS http://example.org; names only, in their ASCII form"
        )
    scheme = match["scheme"] or "https"
    port = int(match["port"] or _PORTS[scheme])
    if not 0 < port < 65536:
        raise ValueError(f"{text!r}: a port is a number from 1 to 65535")
    return AllowedHost(scheme, match["host"], port, below=match["wildcard"] is not None)


def allowed_target(url: str, allowed: tuple[AllowedHost, ...]) -> Target:
    """What `url` asks of whom. Raises `AttachmentUrlRefused` where that is not allowed."""
    try:
        parsed = _URL.validate_python(url)
    except ValidationError:
        raise AttachmentUrlRefused(
            "an attachment's URL cannot be read: it must begin with https://, and be whole"
        ) from None
    if parsed.username is not None or parsed.password is not None:
        raise AttachmentUrlRefused("an attachment's URL holds a user name or password, which is never sent on")
    path = (parsed.path or "/") + (f"?{parsed.query}" if parsed.query else "")
    target = Target(parsed.scheme, parsed.host or "", parsed.port or 0, path)
    if not any(entry.covers(target) for entry in allowed):
        raise AttachmentUrlRefused(
            f"attachments are not fetched from {target}: it is not in {SETTING}, "
            + ("which is empty" if not allowed else "which names host, scheme and port of all that are")
        )
    return target

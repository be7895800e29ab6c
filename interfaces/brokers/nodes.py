"""Several nodes of one broker in one setting: whole URLs, separated by commas.

Each URL carries its own host, user and options, because nodes may differ in all of them; what they must share is the
virtual host, for another one holds other queues. No error here repeats a URL: there may be a password in it.
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from interfaces.brokers.encryption import check_options

UNREADABLE: Final = (
    "the URL cannot be read: host and port must be valid, and any of / ? # @ : [ ] % in a user name or "
    "password written as %2F %3F %23 %40 %3A %5B %5D %25"
)
_BETWEEN = re.compile(r"\s*,\s*(?=[a-z]+://)")
"""A comma is allowed inside a password, so only one with a scheme behind it separates."""


def node_urls(url: str) -> list[str]:
    """The URL of each node in `url`, at least one, as they stand there."""
    return _BETWEEN.split(url.strip())


def split_url(url: str) -> SplitResult:
    """The parts of `url`. Raises `ValueError`; what `urlsplit` raises may have the password in it."""
    try:
        parts = urlsplit(url)
        is_readable = parts.port is None or parts.port > 0
    except ValueError:
        is_readable = False
    if not is_readable:
        raise ValueError(UNREADABLE)
    return parts


def require_one_broker(urls: Sequence[str]) -> None:
    """Raise `ValueError` where `urls` cannot be nodes of one broker."""
    parts = [split_url(url) for url in urls]
    if any("," in part.netloc.partition("@")[2] or "," in (part.hostname or "") for part in parts):
        # "a,b", or "user:password@a,user:password@b", where all before the last @ would be taken for the user.
        whole = "amqp://user:password@a/vhost,amqp://user:password@b/vhost"
        raise ValueError(f"several nodes are given as whole URLs: {whole}")
    if len(urls) > 1 and any(part.scheme == "memory" for part in parts):
        raise ValueError("memory:// is one process and has no further nodes")
    if len({unquote(part.path[1:]) or "/" for part in parts}) > 1:
        raise ValueError("all URLs must name the same virtual host: they are nodes of one cluster")
    for url in urls:
        check_options(url)

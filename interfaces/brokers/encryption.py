"""TLS to RabbitMQ, as the options of a node's URL ask for it.

    amqps://user:password@host:5671/vhost?cafile=ca.pem&certfile=client.pem&keyfile=client.key
    amqps://host:5671/vhost?cafile=ca.pem&certfile=client.pem&keyfile=client.key&auth=external

The names are the client library's. Its reading of them is not used: it passes over names that it does not know, and
takes every value of `no_verify_ssl` but 0 for a yes, so that `no_verify_ssl=false` would switch verification off.
"""

import re
import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from interfaces.errors import BrokerRefused
from interfaces.tls import client_context

if TYPE_CHECKING:  # settings are checked here without the client library
    import yarl

OPTIONS: Final = ("cafile", "certfile", "keyfile", "no_verify_ssl")
AUTHENTICATION: Final = ("plain", "external")
_ABOUT_TLS: Final = re.compile(r"ssl|tls|verif|cert|^ca|keyfile")


def check_options(url: str) -> None:
    """Raise `ValueError` where an option about security would not do what it says. Shows no value of any."""
    parts = urlsplit(url)
    options = parse_qs(parts.query, keep_blank_values=True)
    if unknown := sorted(name for name in options if _ABOUT_TLS.search(name) and name not in OPTIONS):
        raise ValueError(f"there is no option {', '.join(unknown)} in the URL: those of TLS are {', '.join(OPTIONS)}")
    if twice := sorted(name for name, values in options.items() if len(values) > 1):
        raise ValueError(f"{', '.join(twice)} stands in the URL more than once")
    given = [name for name in OPTIONS if name in options]
    if given and parts.scheme != "amqps":
        raise ValueError(f"{', '.join(given)} in the URL means TLS, which begins with amqps://")
    if options.get("no_verify_ssl", ["0"]) not in (["0"], ["1"]):
        raise ValueError("no_verify_ssl in the URL must be 0, or 1 to accept any certificate of anybody")
    if "keyfile" in options and "certfile" not in options:
        raise ValueError("keyfile in the URL needs certfile, the certificate that the key belongs to")
    (authentication,) = options.get("auth", ["plain"])
    if authentication.lower() not in AUTHENTICATION:
        raise ValueError(f"auth in the URL must be {' or '.join(AUTHENTICATION)}")
    if authentication.lower() == "external" and "certfile" not in options:
        raise ValueError("auth=external logs in by a client's certificate: name it by SWITCHBOARD_TLS_CERT or certfile")


def is_unverified(node: "yarl.URL") -> bool:
    """Whether a connection to `node` is encrypted, and nobody knows to whom."""
    return node.scheme == "amqps" and node.query.get("no_verify_ssl", "0") != "0"


def tls_context(node: "yarl.URL") -> ssl.SSLContext:
    """What connects to `node`, an amqps:// one, from the files as they are now.

    Raises `BrokerRefused` where a file cannot be used. Reads files, so not for an event loop's thread.
    """
    query = node.query
    try:
        context = client_context(query.get("cafile"), query.get("certfile"), query.get("keyfile"))
    except ValueError as error:
        raise BrokerRefused(f"TLS to RabbitMQ at {node.host}: {error}") from error
    if is_unverified(node):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

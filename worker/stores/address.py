"""Where Redis is, as `SWITCHBOARD_REDIS_URL` says it: one server, the primary that sentinels know, or a cluster.

    redis://[user[:password]@]host:6379[/db]                                  also rediss://, unix://
    redis+sentinel://[user[:password]@]host1:26379,host2:26379/primary[/db]   also rediss+sentinel://
    redis+cluster://[user[:password]@]host1:6379,host2:6379                   also rediss+cluster://

User and password are those of the Redis servers; sentinels have theirs as `?sentinel_username=&sentinel_password=`. All
other options are redis-py's own, those of TLS checked here: `?ssl_ca_certs=&ssl_certfile=&ssl_keyfile=`. No error
repeats any of the URL, which may hold a password. The settings and the Redis store use it.
"""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode

from interfaces.brokers.nodes import UNREADABLE, split_url

SINGLE: Final = ("redis", "rediss", "unix")
SENTINEL: Final = ("redis+sentinel", "rediss+sentinel")
CLUSTER: Final = ("redis+cluster", "rediss+cluster")

TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_ABOUT_TLS: Final = re.compile(r"ssl|tls|verif|cert|^ca|keyfile")
_HOST: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(%25[A-Za-z0-9._-]+)?\])(:(?P<port>[0-9]{1,5}))?")
_USER: Final = re.compile(r"([^@:\[\]\s]*(:[^@:\[\]\s]*)?@)?")

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis to connect to."""

    scheme: str
    hosts: tuple[Host, ...]
    """The servers of a cluster to begin with, or the sentinels. Empty for one server, which `server_url` names."""
    primary: str | None
    """The name under which sentinels know the primary."""
    server_url: str = field(repr=False)
    """What the client library takes for a Redis server; with several hosts, its host stands for each of them."""
    sentinel_user: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)

    @property
    def is_encrypted(self) -> bool:
        """Whether connections are TLS."""
        return self.scheme.startswith("rediss")

    @property
    def is_unverified(self) -> bool:
        """Whether connections are TLS, and nobody knows to whom."""
        options = dict(parse_qsl(self.server_url.partition("?")[2]))
        return self.is_encrypted and (
            options.get("ssl_cert_reqs", "required") != "required" or options.get("ssl_check_hostname") == "false"
        )

    @property
    def is_cluster(self) -> bool:
        """Whether it is a Redis Cluster."""
        return self.scheme in CLUSTER


def parse_address(url: str) -> RedisAddress:
    """The address a URL names. Raises `ValueError` that says what is wrong and shows nothing of the URL."""
    scheme = url.partition("://")[0].lower()
    _check_tls_options(scheme, parse_qs(url.partition("?")[2], keep_blank_values=True))
    if scheme in SINGLE:
        split_url(url)
        return RedisAddress(scheme, (), None, url)
    if scheme not in SENTINEL + CLUSTER:
        raise ValueError("the URL must begin with " + " or ".join(f"{name}://" for name in SINGLE + SENTINEL + CLUSTER))
    # Not by `urlsplit`, which knows one host only.
    rest, _, query = url.partition("://")[2].partition("?")
    authority, _, path = rest.partition("/")
    user = "".join(authority.rpartition("@")[:2])
    listed = authority.removeprefix(user)
    if "#" in url or not _USER.fullmatch(user):
        raise ValueError(UNREADABLE)
    hosts = tuple(_host(text, 26379 if scheme in SENTINEL else 6379) for text in listed.split(","))
    options = dict(parse_qsl(query, keep_blank_values=True))
    primary, database = _sentinel_path(path) if scheme in SENTINEL else (None, _cluster_path(path))
    sentinel_user, sentinel_password = (options.pop(f"sentinel_{name}", None) for name in ("username", "password"))
    if scheme in CLUSTER and (sentinel_user or sentinel_password):
        raise ValueError("sentinel_username and sentinel_password are for sentinels, and this URL names a cluster")
    plain = f"{scheme.partition('+')[0]}://{user}{listed.split(',')[0]}/{database}?{urlencode(options)}"
    return RedisAddress(scheme, hosts, primary, plain.removesuffix("?"), sentinel_user, sentinel_password)


def _check_tls_options(scheme: str, options: dict[str, list[str]]) -> None:
    # redis-py raises `TypeError` for an option it does not know, and only when it connects.
    if unknown := sorted(name for name in options if _ABOUT_TLS.search(name) and name not in TLS_OPTIONS):
        raise ValueError(f"there is no option {', '.join(unknown)} in the URL: TLS has {', '.join(TLS_OPTIONS)}")
    given = [name for name in TLS_OPTIONS if name in options]
    if given and not scheme.startswith("rediss"):
        raise ValueError(f"{', '.join(given)} in the URL means TLS, which begins with rediss")
    if options.get("ssl_cert_reqs", ["required"]) not in (["required"], ["none"]):
        raise ValueError("ssl_cert_reqs in the URL must be required, or none to accept any certificate of anybody")
    if options.get("ssl_check_hostname", ["true"]) not in (["true"], ["false"]):
        raise ValueError("ssl_check_hostname in the URL must be true, or false to accept the certificate of any host")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("ssl_keyfile in the URL needs ssl_certfile, the certificate that the key belongs to")


def _host(text: str, default_port: int) -> Host:
    match = _HOST.fullmatch(text)
    port = int(match["port"] or default_port) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError(UNREADABLE)
    return unquote(match["host"].strip("[]")), port


def _sentinel_path(path: str) -> tuple[str, int]:
    primary, _, database = path.partition("/")
    if not primary or not re.fullmatch(r"[0-9]*", database):
        raise ValueError(
            "the path of the URL must be the name under which the sentinels know the primary, and the number of the "
            "database where it is not 0, as in redis+sentinel://host1:26379,host2:26379/mymaster/0"
        )
    return unquote(primary), int(database or 0)


def _cluster_path(path: str) -> int:
    if path not in ("", "0"):
        raise ValueError("a Redis Cluster has the database 0 only: leave the path out of the URL")
    return 0

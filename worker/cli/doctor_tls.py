"""The doctor's look at who could listen: connections that are not encrypted, or encrypted to nobody knows whom."""

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

import yarl
from pydantic import SecretStr

from interfaces.brokers.encryption import is_unverified
from interfaces.brokers.nodes import node_urls
from worker.cli.findings import Finding, ok, warn
from worker.cli.servers import shown
from worker.stores.address import parse_address


def check_rabbitmq_tls(url: SecretStr) -> Iterator[Finding]:
    """One finding for each node."""
    for node in node_urls(url.get_secret_value()):
        parts = urlsplit(node)
        is_encrypted = parts.scheme == "amqps"
        yield _judge(
            "RabbitMQ", "amqps", SecretStr(node), is_encrypted, is_unverified(yarl.URL(node)), [parts.hostname]
        )


def check_redis_tls(url: SecretStr) -> Iterator[Finding]:
    """One finding."""
    address = parse_address(url.get_secret_value())
    if address.scheme == "unix":
        return
    hosts: list[str | None] = [host for host, _ in address.hosts]
    hosts = hosts or [urlsplit(address.server_url).hostname]
    yield _judge("Redis", "rediss", url, address.is_encrypted, address.is_unverified, hosts)


def _judge(
    server: str, scheme: str, url: SecretStr, is_encrypted: bool, is_unverified: bool, hosts: list[str | None]
) -> Finding:
    check, place = f"{server} encryption", shown(url)
    if is_unverified:
        detail = f"{place}: the certificate is not verified, so whoever is in between can read and change everything"
        return warn(check, detail, "name the authority as SWITCHBOARD_TLS_CA, and take the option out of the URL")
    if is_encrypted:
        return ok(check, f"{place}: TLS, certificate and host name verified")
    if all(map(_is_this_machine, hosts)):
        return ok(check, f"{place}: none, and the connection does not leave this machine")
    detail = f"{place}: none, so whoever is in between can read passwords and dialogs"
    return warn(check, detail, f"encrypt it ({scheme} in the URL, docs/security.md), unless the network is trusted")


def _is_this_machine(host: str | None) -> bool:
    if host is None or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

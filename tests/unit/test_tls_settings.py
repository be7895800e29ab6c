"""Files and options of TLS in settings and URLs: nothing that looks like security may be without effect."""

import asyncio
import ssl
from pathlib import Path

import pytest

from interfaces.brokers.opening import open_broker
from interfaces.errors import ExitCode, SettingsInvalid
from interfaces.tls import client_context, handshake_fault
from tests.services.authority import Authority
from worker.settings import load_settings


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "it.pem"
    path.touch()
    return str(path)


def test_the_files_go_into_every_encrypted_url_that_names_none_itself(file: str) -> None:
    settings = load_settings(
        amqp_url="amqps://a/v,amqps://b/v?cafile=own.pem&certfile=own.crt,amqp://c/v",
        redis_url="rediss+sentinel://a:1,b:2/primary?ssl_ca_certs=own.pem",
        **dict.fromkeys(("tls_ca", "tls_cert", "tls_key"), file),
    )
    ours = f"certfile={file}&keyfile={file}".replace("/", "%2F")
    amqp, redis = settings.amqp_url.get_secret_value(), settings.redis_url.get_secret_value()
    ca = f"cafile={file}".replace("/", "%2F")
    assert amqp == f"amqps://a/v?{ca}&{ours},amqps://b/v?cafile=own.pem&certfile=own.crt,amqp://c/v"
    assert redis.partition("?")[2] == "ssl_ca_certs=own.pem&" + ours.replace("cert", "ssl_cert").replace(
        "key", "ssl_key"
    )


def test_what_other_processes_are_given_says_the_same(file: str) -> None:
    settings = load_settings(amqp_url="amqps://a", redis_url="rediss://b", tls_ca=file)
    again = load_settings(**{name.removeprefix("SWITCHBOARD_").lower(): v for name, v in settings.environment.items()})
    assert again == settings


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("amqps://h?ca_certs=x", "there is no option ca_certs"),
        ("amqps://h?verify=0", "there is no option verify"),
        ("amqps://h?ssl_cert_reqs=none", "there is no option ssl_cert_reqs"),
        ("amqps://h?no_verify_ssl=false", "must be 0, or 1"),
        ("amqps://h?no_verify_ssl=0&no_verify_ssl=1", "more than once"),
        ("amqp://h?cafile=x", "begins with amqps://"),
        ("amqps://h?keyfile=x", "needs certfile"),
        ("amqps://h?auth=external", "client's certificate"),
        ("amqps://h?auth=digest", "plain or external"),
    ],
)
def test_an_option_of_rabbitmqs_url_without_effect_is_refused(url: str, fault: str) -> None:
    for give in (lambda: load_settings(amqp_url=url), lambda: open_broker(url)):
        with pytest.raises(SettingsInvalid, match=fault):
            give()


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("rediss://h?cafile=x", "there is no option cafile"),
        ("rediss+cluster://h?no_verify_ssl=1", "there is no option no_verify_ssl"),
        ("rediss://h?ssl_cert_reqs=optional", "must be required, or none"),
        ("rediss://h?ssl_check_hostname=maybe", "must be true, or false"),
        ("redis+sentinel://h/p?ssl_ca_certs=x", "begins with rediss"),
        ("rediss://h?ssl_keyfile=x", "needs ssl_certfile"),
    ],
)
def test_an_option_of_rediss_url_without_effect_is_refused(url: str, fault: str) -> None:
    with pytest.raises(SettingsInvalid, match=fault) as caught:
        load_settings(redis_url=url)
    assert caught.value.exit_code is ExitCode.USAGE


def test_files_that_nothing_would_use_are_refused(file: str) -> None:
    with pytest.raises(SettingsInvalid, match="write amqps:// and rediss://"):
        load_settings(amqp_url="amqp://h", redis_url="redis://h", tls_ca=file)
    with pytest.raises(SettingsInvalid, match="tls_key needs tls_cert"):
        load_settings(amqp_url="amqps://h", tls_key=file)
    with pytest.raises(SettingsInvalid, match="SWITCHBOARD_TLS_CA: Path does not point to a file"):
        load_settings(amqp_url="amqps://h", tls_ca="/nowhere/ca.pem")
    assert load_settings(tls_ca=file).is_embedded


def test_errors_that_lead_back_to_themselves_are_looked_through_once() -> None:
    first, second = OSError("one"), OSError("two")
    first.__context__, second.__context__ = second, first
    assert handshake_fault(first) is None
    second.__cause__ = ssl.SSLCertVerificationError(1, "refused")
    second.__cause__.verify_code, second.__cause__.verify_message = 10, "certificate has expired"
    assert "Mend: renew it" in (handshake_fault(first) or "")


async def test_a_certificate_of_an_older_make_is_told_from_one_of_an_unknown_authority(tmp_path: Path) -> None:
    """Python 3.13 and newer refuse it in every connection; earlier ones where they are told to."""
    authority = Authority(tmp_path, "authority", as_asked=False)
    issued = authority.issue("server", "127.0.0.1")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(issued.certificate, issued.key)
    context = client_context(str(authority.file), None, None)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=serving) as server:
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=context)
    fault = handshake_fault(caught.value)
    assert fault is not None
    assert "RFC 5280" in fault
    assert "SWITCHBOARD_TLS_CA" not in fault

"""What every encrypted connection has in common: files that its URL does not name, and what a failed handshake means.

Certificates are verified, chain and host name, unless the URL itself says otherwise. Both client libraries report a
failed handshake like a server that is away; waiting for that to pass would hide what only a person can mend. Used by
`brokers.encryption` and the store's `address` and `redis_errors`.
"""

import ssl
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

CHAIN: Final = "name the authority that signed it as SWITCHBOARD_TLS_CA"
FORM: Final = (
    "have it, or its authority's own, made anew with the extensions that RFC 5280 asks for (4.2.1), "
    "on which Python insists from 3.13 on"
)
MENDS: Final[Mapping[int, str]] = {
    9: "set the clock right",
    10: "renew it on the server, or set the clock right",
    62: "use a host name that it was made for",
    64: "use an address that it was made for",
    **dict.fromkeys(range(80, 95), FORM),
}
"""By OpenSSL's X509_V_ERR_ numbers: not yet valid, expired, other host name, other address, not as the RFC has it."""

CLIENT_ALERTS: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "UNKNOWN_CA", "CERTIFICATE", "ACCESS_DENIED")
"""In OpenSSL's names of the alerts by which a server refuses a client; handshake failure is TLS 1.2's way of it."""

PLAIN_TEXT: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")


def handshake_fault(error: BaseException) -> str | None:
    """Why the two sides do not accept each other, and how to mend it; `None` where that is not what failed."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            mend = MENDS.get(cause.verify_code, CHAIN)
            return f"the server's certificate is refused: {cause.verify_message.rstrip('.')}. Mend: {mend}"
        reason = cause.reason if isinstance(cause, ssl.SSLError) else None
        if reason is not None and "ALERT" in reason and any(alert in reason for alert in CLIENT_ALERTS):
            return (
                f"the server refuses this side's certificate, or that there is none ({reason}). "
                "Mend: name one that it accepts as SWITCHBOARD_TLS_CERT and SWITCHBOARD_TLS_KEY"
            )
        if reason is not None and any(sign in reason for sign in PLAIN_TEXT):
            return f"the server does not speak TLS at this port ({reason}). Mend: correct the port in the URL"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    # Errors that a library keeps and raises again can lead back to themselves.
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def client_context(cafile: str | None, certfile: str | None, keyfile: str | None) -> ssl.SSLContext:
    """What verifies servers by the authorities in `cafile`, the system's where that is `None`, and shows `certfile`.

    Raises `ValueError` that says which file cannot be used. Reads files, so not for an event loop's thread.
    """
    try:
        context = ssl.create_default_context(cafile=cafile)
    except OSError as error:
        raise ValueError(f"the authorities' certificates in {cafile!r} cannot be used: {error}") from error
    if certfile is not None:
        try:
            context.load_cert_chain(certfile, keyfile, password=_refuse_passphrase)
        except (OSError, ValueError) as error:
            files = " and ".join(repr(name) for name in (certfile, keyfile) if name is not None)
            raise ValueError(f"this side's certificate and key in {files} cannot be used: {error}") from error
    return context


def _refuse_passphrase() -> str:
    # Without this OpenSSL asks the terminal, and a worker would wait for somebody to type.
    raise ValueError("the key is encrypted; give one that is not, readable by its user alone")


def with_options(url: str, *groups: Mapping[str, str]) -> str:
    """`url` with each group of options in its query, unless it has one of that group already.

    A key stays with its certificate: added to a certificate of the URL's own, it would be the key of another one.
    """
    base, _, query = url.partition("?")
    present = dict(parse_qsl(query, keep_blank_values=True)).keys()
    added = [urlencode(group) for group in groups if group and not group.keys() & present]
    return "?".join((base, "&".join(filter(None, (query, *added))))) if added else url

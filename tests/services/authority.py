"""A certificate authority for one test, and the certificates it gives: good ones, expired ones, ones for other hosts.

`openssl` could do it too, in many more lines of configuration. Used by `tls_servers.py` and the tests of TLS.
"""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, each in a file."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates, `as_asked` by RFC 5280 or as they were often made before Python looked at that.

    `file` is what those who trust it are given.
    """

    def __init__(self, directory: Path, name: str, *, as_asked: bool = True) -> None:
        self._directory = directory
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._as_asked = as_asked
        now = datetime.now(UTC)
        builder = self._builder(self._name, self._key.public_key(), now - DAY, now + 30 * DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        certificate = (builder.add_extension(_SIGNING, critical=True) if as_asked else builder).sign(
            self._key, hashes.SHA256()
        )
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *hosts: str, ends_in: timedelta = 10 * DAY) -> Issued:
        """A certificate whose common name is `name`, for `hosts` (names and addresses) where it is a server's."""
        key = ec.generate_private_key(ec.SECP256R1())
        ends = datetime.now(UTC) + ends_in
        builder = self._builder(_name(name), key.public_key(), min(ends, datetime.now(UTC)) - DAY, ends)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        issued = Issued(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        issued.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        issued.key.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
        return issued

    def issue_encrypted(self, name: str) -> Issued:
        """The same with a key that nobody can use without its passphrase."""
        issued = self.issue(name)
        key = serialization.load_pem_private_key(issued.key.read_bytes(), None)
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        issued.key.write_bytes(key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"passphrase")))
        return issued

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(self._name, name, key, x509.random_serial_number(), begins, ends)
        if not self._as_asked:
            return builder
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False).add_extension(
            signer, critical=False
        )


_SIGNING = x509.KeyUsage(
    **dict.fromkeys(("key_cert_sign", "crl_sign"), True),
    **dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"), False),
    **dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False),
)
"""What the key of an authority is for."""


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)

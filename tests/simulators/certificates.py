"""Certificates made at test time: an authority, and what it signs for a node, a scanner, a PACS."""

from __future__ import annotations

import hashlib
import os
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST = "127.0.0.1"
_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class KeyKind(Enum):
    """Kinds of keys."""

    ECDSA = "P-256"
    RSA = "2048 bits"
    WEAK_RSA = "1024 bits: below what BCP 195 allows"


class Purpose(Enum):
    """What a certificate is for (RFC 5280 4.2.1.12)."""

    BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
    CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate with its key, in files."""

    certificate_file: Path
    key_file: Path

    @property
    def sha256(self) -> str:
        """The fingerprint as ``openssl x509 -fingerprint -sha256`` has it, without colons."""
        der = ssl.PEM_cert_to_DER_cert(self.certificate_file.read_text())
        return hashlib.sha256(der).hexdigest()

    def lock_key(self, pass_phrase: bytes) -> None:
        """Encrypt the key file, as some tools do unasked."""
        key = serialization.load_pem_private_key(self.key_file.read_bytes(), None)
        self.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(pass_phrase),
            )
        )


class Authority:
    """Signs certificates, and writes them below its folder."""

    def __init__(self, folder: Path, name: str = "ca", *, valid_days: float = 90.0) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        usage = _usage(is_authority=True)
        certificate = (
            self._draw(name, self._key, valid_days)
            .add_extension(constraints, critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = folder / f"{name}.pem"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        host: str = HOST,
        valid_days: float = 90.0,
        kind: KeyKind = KeyKind.ECDSA,
        purpose: Purpose = Purpose.BOTH,
        folder: Path | None = None,
    ) -> Identity:
        """Sign a certificate; a negative ``valid_days`` is how long ago it expired.

        What stands under this name already is replaced, as a person would do it.
        """
        key = _make_key(kind)
        certificate = (
            self._draw(name, key, valid_days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(is_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purpose.value), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        place = folder or self._folder
        identity = Identity(
            certificate_file=place / f"{name}.pem", key_file=place / f"{name}.key.pem"
        )
        _replace(identity.certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
        _replace(
            identity.key_file,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        return identity

    def _draw(self, name: str, key: _Key, valid_days: float) -> x509.CertificateBuilder:
        now = datetime.now(timezone.utc)
        ends = now + timedelta(days=valid_days)
        return (
            x509.CertificateBuilder()
            .subject_name(_common_name(name))
            .issuer_name(_common_name(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, ends) - timedelta(days=1))
            .not_valid_after(ends)
            # Python 3.13 and later ask for both (RFC 5280 4.2.1.1).
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )


def _make_key(kind: KeyKind) -> _Key:
    if kind is KeyKind.ECDSA:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65_537, 2048 if kind is KeyKind.RSA else 1024)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=not is_authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _replace(path: Path, content: bytes) -> None:
    written = path.with_suffix(".new")
    written.touch(mode=0o600)
    written.write_bytes(content)
    os.replace(written, path)  # noqa: PTH105  as ``mv`` does: another file under the same name

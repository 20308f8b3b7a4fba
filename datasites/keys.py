"""A site's identity and keys: syft's server identity, the signing key, the trial certificate."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import secrets
import uuid
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from nacl.encoding import HexEncoder
from nacl.signing import SigningKey

from datasites.errors import ConfigurationError
from datasites.files import write_private
from datasites.imaging.pseudonyms import Pseudonyms
from policies.site_signature import framed
from policies.site_signature import is_signed as is_signed

TRIAL_CERTIFICATE_DAYS = 365


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What syft needs to be the same server after a restart: a UUIDv4 and an Ed25519 seed, hex."""

    uid: str
    key: str
    root_password: str


class SiteKey:
    """The site's Ed25519 key, which signs approvals and checkpoints of the audit log."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)

    @property
    def public_hex(self) -> str:
        """The public key, 64 hex digits."""
        return self._key.verify_key.encode(HexEncoder).decode()

    def sign(self, purpose: str, message: bytes) -> str:
        """Hex signature of `message` for one purpose; it is not valid for another."""
        return self._key.sign(framed(purpose, message)).signature.hex()


def make_keys(keys: Path, host: str, name: str) -> None:
    """Make the identity, the signing key and a trial certificate with its own authority."""
    identity = {
        "uid": uuid.uuid4().hex,  # syft breaks on ids that are not valid UUIDv4
        "key": secrets.token_hex(32),
        "root_password": secrets.token_urlsafe(32),
    }
    write_private(keys.parent / "identity.json", json.dumps(identity).encode())
    seed = secrets.token_bytes(32)
    write_private(keys / "site_key", seed.hex().encode())
    write_private(keys / "site_key.pub", SiteKey(seed).public_hex.encode(), 0o644)
    _make_trial_certificate(keys, host, name)


def load_identity(state: Path) -> ServerIdentity:
    """The identity that `make_keys` wrote."""
    try:
        return ServerIdentity(**json.loads((state / "identity.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            "the site's identity.json is missing or broken; restore it from the backup: a new one "
            "would be another site"
        ) from error


def load_site_key(keys: Path) -> SiteKey:
    """The site's signing key."""
    try:
        return SiteKey(bytes.fromhex((keys / "site_key").read_text()))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            "the site's signing key (state/keys/site_key) is missing or broken; restore it"
        ) from error


def _make_trial_certificate(keys: Path, host: str, name: str) -> None:
    """A certificate authority for trials and one server certificate signed by it (P-256)."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate(f"{name} trial authority", authority_key.public_key())
    authority = (
        authority.issuer_name(_name(f"{name} trial authority"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False
        )
    )
    authority_certificate = authority.sign(authority_key, hashes.SHA256())
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = (
        _certificate(name, server_key.public_key())
        .issuer_name(authority_certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_alternative_names(host)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    server_certificate = server.sign(authority_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    # The authority's key is not kept: it signs this one certificate and nothing else, ever.
    write_private(keys / "tls_authority.pem", authority_certificate.public_bytes(pem), 0o644)
    write_private(keys / "tls_certificate.pem", server_certificate.public_bytes(pem), 0o644)
    write_private(
        keys / "tls_key.pem",
        server_key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def _certificate(name: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=TRIAL_CERTIFICATE_DAYS))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    return names


def load_pseudonyms(keys: Path) -> Pseudonyms:
    """The site's secret for pseudonyms, made when it is first needed.

    Raises:
        ConfigurationError: It is broken. A new one would give every patient a new pseudonym.
    """
    path = keys / "pseudonym_secret"
    if not path.exists():
        write_private(path, secrets.token_hex(32).encode())
    try:
        return Pseudonyms(bytes.fromhex(path.read_text()))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            "the site's secret for pseudonyms (state/keys/pseudonym_secret) is broken; restore it"
        ) from error

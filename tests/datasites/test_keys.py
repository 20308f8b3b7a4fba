"""Signatures hold for one purpose and one key; the trial certificate holds for the site's host."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import stat
import uuid
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from datasites.errors import ConfigurationError
from datasites.keys import SiteKey, is_signed, load_identity, load_site_key, make_keys

KEY = SiteKey(b"k" * 32)
OTHER = SiteKey(b"o" * 32)


@given(st.binary(max_size=100))
def test_signature_holds_for_its_message_purpose_and_key(message: bytes) -> None:
    signature = KEY.sign("approval", message)
    assert is_signed(KEY.public_hex, "approval", message, signature)
    assert not is_signed(KEY.public_hex, "audit checkpoint", message, signature)
    assert not is_signed(KEY.public_hex, "approval", message + b"\0", signature)
    assert not is_signed(OTHER.public_hex, "approval", message, signature)


def test_signature_of_the_bare_message_is_of_no_purpose() -> None:
    bare = SigningKey(b"k" * 32).sign(b"message").signature.hex()
    assert not is_signed(KEY.public_hex, "approval", b"message", bare)


@pytest.mark.parametrize("signature", ["", "00", "zz" * 64, "00" * 64, "00" * 65, "é" * 64])
def test_nonsense_is_no_signature(signature: str) -> None:
    assert not is_signed(KEY.public_hex, "approval", b"message", signature)


@pytest.mark.parametrize("public", ["", "00", "zz" * 32, "00" * 31, "00" * 33, "é" * 64])
def test_nonsense_is_no_public_key(public: str) -> None:
    assert not is_signed(public, "approval", b"message", KEY.sign("approval", b"message"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys of a site at imaging.st-marys.example."""
    return made(tmp_path_factory.mktemp("site"), "imaging.st-marys.example")


def made(state: Path, host: str) -> Path:
    (state / "keys").mkdir()
    make_keys(state / "keys", host, "st-marys")
    return state / "keys"


def test_key_files_are_for_the_site_only(keys: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()}
    assert {name: mode for name, mode in modes.items() if mode == 0o600} == {
        "site_key": 0o600,
        "tls_key.pem": 0o600,
    }
    assert set(modes) == {
        "site_key", "site_key.pub", "tls_authority.pem", "tls_certificate.pem", "tls_key.pem",
    }  # fmt: skip
    assert stat.S_IMODE((keys.parent / "identity.json").stat().st_mode) == 0o600


def test_loaded_key_is_the_one_whose_public_part_is_told(keys: Path) -> None:
    assert load_site_key(keys).public_hex == (keys / "site_key.pub").read_text()


def test_identity_is_a_uuid4_and_a_seed(keys: Path) -> None:
    identity = load_identity(keys.parent)
    assert uuid.UUID(identity.uid).version == 4
    assert uuid.UUID(identity.uid).variant == uuid.RFC_4122
    assert len(bytes.fromhex(identity.key)) == 32
    assert len(identity.root_password) >= 40


def test_two_sites_share_nothing_secret(keys: Path, tmp_path: Path) -> None:
    other = made(tmp_path, "imaging.st-marys.example")
    one, two = (json.loads((k.parent / "identity.json").read_text()) for k in (keys, other))
    assert all(one[field] != two[field] for field in one)
    for name in ("site_key", "tls_key.pem", "tls_authority.pem"):
        assert (keys / name).read_bytes() != (other / name).read_bytes()


@pytest.mark.parametrize(
    "content", [None, "", "{", "{}", '{"uid": "x"}', "[]", '{"uid":"a","key":"b","more":"c"}']
)
def test_broken_identity_is_an_error_with_what_to_do(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "identity.json").write_text(content)
    with pytest.raises(ConfigurationError) as refused:
        load_identity(tmp_path)
    assert str(refused.value) == (
        "the site's identity.json is missing or broken; restore it from the backup: a new one "
        "would be another site"
    )


@pytest.mark.parametrize("content", [None, "", "zz", "00" * 31, "00" * 33])
def test_broken_signing_key_is_an_error_with_what_to_do(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "site_key").write_text(content)
    with pytest.raises(ConfigurationError) as refused:
        load_site_key(tmp_path)
    assert str(refused.value) == (
        "the site's signing key (state/keys/site_key) is missing or broken; restore it"
    )


# ------------------------------------------------------------------------ trial certificate


def certificate(keys: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((keys / f"tls_{name}.pem").read_bytes())


def subject(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def verify(keys: Path, name: str, authority: Path | None = None) -> int:
    """Check the chain as a client does; the number of certificates in it."""
    store = Store([certificate(authority or keys, "authority")])
    verifier = PolicyBuilder().store(store).build_server_verifier(subject(name))
    return len(verifier.verify(certificate(keys, "certificate"), []))


@pytest.mark.parametrize(
    ("host", "good", "bad"),
    [
        (
            "imaging.st-marys.example",
            ["imaging.st-marys.example", "localhost"],
            ["st-marys.example", "x.imaging.st-marys.example", "127.0.0.1", "st-marys"],
        ),
        ("127.0.0.1", ["127.0.0.1", "localhost"], ["127.0.0.2", "::1", "st-marys.example"]),
        ("::1", ["::1", "localhost"], ["127.0.0.1"]),
    ],
)
def test_certificate_is_valid_for_the_host_and_for_no_other(
    tmp_path: Path, host: str, good: list[str], bad: list[str]
) -> None:
    keys = made(tmp_path, host)
    for name in good:
        assert verify(keys, name) == 2
    for name in bad:
        with pytest.raises(VerificationError):
            verify(keys, name)


def test_certificate_is_not_valid_under_another_authority(keys: Path, tmp_path: Path) -> None:
    """Not even under one of the same name."""
    other = made(tmp_path, "imaging.st-marys.example")
    with pytest.raises(VerificationError):
        verify(keys, "localhost", authority=other)


def test_certificate_belongs_to_its_key_and_the_authority_has_none(keys: Path) -> None:
    pem = (keys / "tls_key.pem").read_bytes()
    public = serialization.load_pem_private_key(pem, None).public_key()
    assert certificate(keys, "certificate").public_key() == public
    assert certificate(keys, "authority").public_key() != public
    assert len(list(keys.glob("*key.pem"))) == 1


def test_server_certificate_signs_no_other(keys: Path) -> None:
    extensions = certificate(keys, "certificate").extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    limits = certificate(keys, "authority").extensions.get_extension_for_class(
        x509.BasicConstraints
    )
    assert (limits.value.ca, limits.value.path_length, limits.critical) == (True, 0, True)


def test_certificate_holds_for_a_year_from_now(keys: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    for name in ("authority", "certificate"):
        found = certificate(keys, name)
        assert found.not_valid_before_utc < now
        left = found.not_valid_after_utc - now
        assert dt.timedelta(days=364) < left <= dt.timedelta(days=365)

"""The certificate: signed by the site, readable by anyone, and false after any change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import factories
from datasites.catalogue import CERTIFICATE, is_intact, write_version
from datasites.certificate import (
    Action,
    Certificate,
    Method,
    TextSearch,
    read_certificate,
    sign_certificate,
)
from datasites.errors import DatasetError
from datasites.keys import SiteKey, load_site_key, make_keys
from datasites.show_imaging import print_certificate

VERSION = "c" * 64


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SiteKey:
    return made_key(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> SiteKey:
    return made_key(tmp_path_factory.mktemp("other"))


def made_key(folder: Path) -> SiteKey:
    make_keys(folder, "127.0.0.1", "st-marys")
    return load_site_key(folder)


def certificate(**changes: Any) -> Certificate:
    plain: dict[str, Any] = {
        "dataset": "chest-xray",
        "site": "St Mary's",
        "source": "folder",
        "published_at": "2026-01-01T00:00:00+00:00",
        "published_by": "olga",
        "methods": (Method(code="113100", meaning="Basic Application Confidentiality Profile"),),
        "recipe_sha256": "d" * 64,
        "actions": (
            Action(attribute="(0010,0010) PatientName", action="removed", count=81),
            Action(attribute="(0028,0010) Rows", action="kept", count=81),
        ),
        "text_search": TextSearch(tool="tesseract 5.3.0", searched=89, found=8),
        "images": 81,
        "patients": 41,
        "smallest_group": 3,
        "quarantined": {"text found in pixels": 8},
        "recognisable": {"yes": 0, "possibly": 2},
        "look_alikes": 0,
        "seed": 0,
        "arrays": {"train_images.npy": "e" * 64},
        "standardisation_sha256": "f" * 64,
        "tools": {"numpy": "1.26"},
    }
    return Certificate(**{**plain, **changes})


def store(folder: Path, content: bytes) -> Path:
    (folder / VERSION).mkdir(parents=True, exist_ok=True)
    (folder / VERSION / CERTIFICATE).write_bytes(content)
    return folder


def test_a_certificate_is_read_as_it_was_signed(tmp_path, key):
    store(tmp_path, sign_certificate(certificate(), key))
    assert read_certificate(tmp_path, VERSION) == certificate()
    assert read_certificate(tmp_path, VERSION, key.public_hex) == certificate()


def test_it_verifies_without_this_products_code(tmp_path, key):
    """What a reviewer needs: an Ed25519 key, JSON, and the words that are signed first."""
    plain = json.loads(sign_certificate(certificate(), key))
    assert set(plain) == {"certificate", "public_key", "signature"}
    assert plain["public_key"] == key.public_hex


def test_the_key_of_another_site_is_refused(tmp_path, key, other_key):
    store(tmp_path, sign_certificate(certificate(), other_key))
    assert read_certificate(tmp_path, VERSION)
    with pytest.raises(DatasetError, match="is not signed by this site"):
        read_certificate(tmp_path, VERSION, key.public_hex)


def test_a_certificate_that_names_our_key_with_anothers_signature_is_refused(
    tmp_path, key, other_key
):
    plain = json.loads(sign_certificate(certificate(), other_key))
    plain["public_key"] = key.public_hex
    store(tmp_path, json.dumps(plain).encode())
    for wanted in (None, key.public_hex):
        with pytest.raises(DatasetError, match="is not signed by this site"):
            read_certificate(tmp_path, VERSION, wanted)


@pytest.mark.parametrize("field", sorted(Certificate.model_fields))
def test_a_change_of_any_field_breaks_the_signature(tmp_path, key, field):
    plain = json.loads(sign_certificate(certificate(), key))
    value = plain["certificate"][field]
    changed: Any = {
        int: lambda v: v + 1, str: lambda v: v + "x", list: lambda v: v[:-1],
        dict: lambda v: {**v, "more": 1} if field in ("quarantined", "recognisable")
        else {**v, "more": "1"},
    }.get(type(value), lambda v: "x")(value)  # fmt: skip
    if field == "text_search":
        changed = {**value, "found": 0}
    plain["certificate"][field] = changed
    store(tmp_path, json.dumps(plain).encode())
    with pytest.raises(DatasetError, match=r"is not signed by this site|is broken"):
        read_certificate(tmp_path, VERSION, key.public_hex)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_no_changed_byte_gives_another_certificate(tmp_path_factory, key, data):
    content = bytearray(sign_certificate(certificate(), key))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    folder = store(tmp_path_factory.mktemp("tampered"), bytes(content))
    try:
        found = read_certificate(folder, VERSION, key.public_hex)
    except DatasetError:
        return
    assert found == certificate()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"[]", b"null", b"\xff",
        b'{"certificate": {}, "public_key": 1, "signature": 2}',
        b'{"certificate": null, "public_key": "x", "signature": "y"}',
    ],
)  # fmt: skip
def test_what_is_no_certificate_is_refused_in_a_sentence(tmp_path, key, content):
    store(tmp_path, content)
    with pytest.raises(DatasetError, match="is broken"):
        read_certificate(tmp_path, VERSION, key.public_hex)


@pytest.mark.parametrize(("public_key", "signature"), [(1, 2), ("zz", "zz"), ("", ""), (None, [])])
def test_a_key_or_signature_that_is_none_is_refused_in_a_sentence(
    tmp_path, key, public_key, signature
):
    plain = json.loads(sign_certificate(certificate(), key))
    store(tmp_path, json.dumps({**plain, "public_key": public_key}).encode())
    with pytest.raises(DatasetError):
        read_certificate(tmp_path, VERSION, key.public_hex)
    store(tmp_path, json.dumps({**plain, "signature": signature}).encode())
    with pytest.raises(DatasetError):
        read_certificate(tmp_path, VERSION, key.public_hex)


def test_a_version_without_a_certificate_says_so(tmp_path, key):
    (tmp_path / VERSION).mkdir()
    with pytest.raises(DatasetError, match="has no certificate"):
        read_certificate(tmp_path, VERSION, key.public_hex)


def test_the_versions_hash_covers_the_certificate(tmp_path, key):
    version, _ = write_version(
        tmp_path, factories.splits(), name="chest-xray", classes=("a", "b"), source="a test",
        licence="none", description="", minimum_count=5,
        certify=lambda card, files: sign_certificate(certificate(arrays=files), key),
    )  # fmt: skip
    assert is_intact(tmp_path, version)
    found = read_certificate(tmp_path, version, key.public_hex)
    assert set(found.arrays) == {
        "test_images.npy", "test_labels.npy", "train_images.npy", "train_labels.npy",
    }  # fmt: skip
    (tmp_path / version).chmod(0o700)
    path = tmp_path / version / CERTIFICATE
    path.chmod(0o600)
    path.write_bytes(sign_certificate(certificate(images=82, arrays=found.arrays), key))
    assert read_certificate(tmp_path, version, key.public_hex).images == 82
    assert not is_intact(tmp_path, version)


def test_the_page_tells_what_was_done_and_what_was_not(key, capsys):
    print_certificate(Console(width=120), certificate(published_by="[bold]olga"), VERSION, "ab")
    page = capsys.readouterr().out
    for words in (
        "113100", "113101", "113102", "89 images searched with tesseract 5.3.0", "found in 8",
        "81 of 41 patients; smallest group 3", "text found in pixels 8", "[bold]olga",
        "PatientName", "2 possibly",
    ):  # fmt: skip
        assert words in page, words
    assert len(page.splitlines()) < 66, "one page"


def test_the_page_of_arrays_says_that_nothing_was_applied(capsys):
    arrays = certificate(
        methods=(), recipe_sha256=None, patients=None, actions=(), recognisable={},
        text_search=TextSearch(tool=None, searched=0, found=0), quarantined={},
        not_applied=("no profile: the source holds arrays",),
    )  # fmt: skip
    print_certificate(Console(width=120), arrays, VERSION, "ab")
    page = capsys.readouterr().out
    assert "no profile" in page
    assert "NOT made" in page
    assert "patients unknown" in page

"""Where the page may listen, and under which names."""

from __future__ import annotations

from pathlib import Path

import pytest

import factories
from datasites.errors import ConfigurationError
from datasites.new_site import example_config, make_site
from datasites.page.serving import page_settings
from datasites.page.settings import LOOPBACK_NAMES, allowed_names, is_loopback


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    import yaml

    folder = tmp_path_factory.mktemp("settings")
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump(factories.policy().model_dump(mode="json")))
    owner = "owner@st-marys.example"
    return make_site(
        folder / "site", example_config("st-marys"), policy, owner, owner, factories.PASSWORD
    )


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("page.hospital.example", False),
    ],
)  # fmt: skip
def test_what_other_machines_reach_needs_tls(site, host, loopback) -> None:
    assert is_loopback(host) is loopback
    if loopback:
        assert page_settings(site, host, 8450, tls=False).scheme == "http"
    else:
        with pytest.raises(ConfigurationError, match=r"in the clear; add --tls, or listen on 127"):
            page_settings(site, host, 8450, tls=False)
        assert page_settings(site, host, 8450, tls=True).scheme == "https"


def test_with_tls_it_answers_to_the_names_of_the_certificate(site) -> None:
    names = allowed_names("0.0.0.0", site.certificate)
    assert names >= LOOPBACK_NAMES | {"0.0.0.0"}
    assert "evil.example" not in names


def test_a_certificate_that_cannot_be_used_is_named(site, tmp_path) -> None:
    broken = tmp_path / "certificate.pem"
    broken.write_text("no certificate")
    with pytest.raises(ConfigurationError, match="cannot be read, or names no host"):
        allowed_names("127.0.0.1", broken)


@pytest.mark.parametrize(
    ("host", "tls", "url", "cookie"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:8450/", "sitegate-8450"),
        ("::1", False, "http://[::1]:8450/", "sitegate-8450"),
        ("10.0.0.1", True, "https://10.0.0.1:8450/", "__Host-sitegate-8450"),
    ],
)
def test_address_and_cookie_say_how_it_is_served(site, host, tls, url, cookie) -> None:
    settings = page_settings(site, host, 8450, tls=tls)
    assert (settings.url, settings.cookie) == (url, cookie)
    assert settings.socket == Path(site.control_socket)

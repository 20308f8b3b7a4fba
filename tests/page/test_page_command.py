"""`sitegate page`: where it listens, what it says when it cannot, and when the site is away."""

from __future__ import annotations

import socket
import ssl

import httpx
import pytest
import typer
import yaml
from typer.testing import CliRunner

import factories
from datasites.new_site import example_config, make_site
from datasites.page_command import page as page_command
from datasites.trial import free_port
from pages import OWNER, RunningPage


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site that does not run."""
    folder = tmp_path_factory.mktemp("away")
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump(factories.policy().model_dump(mode="json")))
    return make_site(
        folder / "site", example_config("st-marys"), policy, OWNER, OWNER, factories.PASSWORD
    )


def test_a_site_that_does_not_run_is_told_on_the_page(site) -> None:
    page = RunningPage(site.path)
    try:
        page.wait_until_up()
        for path in ("/login", "/", "/requests/1", "/audit"):
            cookie = {"Cookie": f"sitegate-{page.port}=token"}
            answer = httpx.get(page.url + path, headers=cookie)
            assert answer.status_code == 503
            assert "The site does not run" in answer.text
            assert "sitegate serve" in answer.text
            assert "Traceback" not in answer.text
    finally:
        code, said = page.stop()
    assert code == 0
    assert said == f"St Mary's · review page at {page.url}/ · Ctrl-C ends it\n"


def test_with_tls_it_serves_the_sites_certificate(site) -> None:
    page = RunningPage(site.path, "--tls")
    try:
        page.wait_until_up()
        trusted = ssl.create_default_context(cafile=site.keys / "tls_authority.pem")
        answer = httpx.get(f"{page.url}/login", verify=trusted)
        assert answer.status_code == 503
        assert "max-age" in answer.headers["Strict-Transport-Security"]
    finally:
        page.stop()


def refused(path, *options) -> str:
    """What the command says when it does not serve."""
    app = typer.Typer()
    app.command()(page_command)
    result = CliRunner().invoke(app, ["--site", str(path), *options])
    assert result.exit_code == 2
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--host", "0.0.0.0"), "0.0.0.0 is reached from other machines"),
        (("--host", "203.0.113.9", "--tls"), "on 203.0.113.9 cannot be had"),
    ],
)
def test_an_address_that_it_cannot_or_may_not_have_is_refused(site, options, sentence) -> None:
    assert sentence in refused(site.path, *options)


def test_a_taken_port_is_named(site) -> None:
    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        said = refused(site.path, "--port", str(port))
    assert f"port {port} on 127.0.0.1 cannot be had" in said
    assert "Name another with --port" in said


def test_a_place_without_a_site_is_refused(tmp_path) -> None:
    assert "there is no site at" in refused(tmp_path)

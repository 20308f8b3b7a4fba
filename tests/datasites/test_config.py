"""A configuration that does not fit is refused with the field; its defaults open nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from datasites.config import Site, SiteConfig, load_site
from datasites.errors import ConfigurationError
from datasites.new_site import checked_config, example_config, example_policy
from policies.document import load_policy

MINIMAL = {"name": "st-marys", "title": "St Mary's"}
EXAMPLES = ["st-marys", "north-clinic", "seaside"]


def load(folder: Path, **fields: Any) -> Site:
    (folder / "site.yaml").write_text(yaml.safe_dump({**MINIMAL, **fields}))
    return load_site(folder)


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load_site(folder)
    assert refused.value.exit_code == 2
    return str(refused.value)


def test_name_and_title_are_enough_and_the_defaults_open_nothing(tmp_path: Path) -> None:
    site = load(tmp_path)
    assert site.config.host == "127.0.0.1"
    assert site.config.sandbox == "bubblewrap"
    assert site.config.tls is None
    assert site.config.minimum_password >= 12
    assert site.url == "https://127.0.0.1:8443"
    assert site.database_url == f"sqlite:///{tmp_path / 'state' / 'site.db'}"
    assert site.certificate == tmp_path / "state/keys/tls_certificate.pem"


def test_site_is_found_by_its_directory_and_by_its_file(tmp_path: Path) -> None:
    site = load(tmp_path)
    again = load_site(tmp_path / "site.yaml")
    assert (again.path, again.config) == (site.path, site.config)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_hospital_is_valid(name: str) -> None:
    config = example_config(name)
    assert (config.name, config.host, config.sandbox) == (name, "127.0.0.1", "bubblewrap")


def test_example_hospitals_run_side_by_side() -> None:
    assert len({example_config(name).port for name in EXAMPLES}) == 3


def test_unknown_example_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="there is no example hospital `x`"):
        example_config("x")


def test_example_policy_is_valid() -> None:
    assert load_policy(example_policy()).name == "university-hospital"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"port": 0}, "`port`: Input should be greater than or equal to 1 (seen: 0)"),
        ({"port": 65_536}, "`port`: Input should be less than or equal to 65535 (seen: 65536)"),
        ({"prot": 1}, "`prot` is not a field; did you mean `port`?"),
        ({"password": "x"}, "`password` is not a field; did you mean `minimum_password`?"),
        (
            {"sandbox": "none"},
            "`sandbox`: Input should be 'bubblewrap' or 'process' (seen: 'none')",
        ),
        ({"sandbox": None}, "`sandbox`: Input should be 'bubblewrap' or 'process' (seen: None)"),
        ({"threads": 0}, "`threads`: Input should be greater than or equal to 1 (seen: 0)"),
        ({"max_body_mb": 0}, "`max_body_mb`: Input should be greater than 0 (seen: 0)"),
        (
            {"minimum_password": 7},
            "`minimum_password`: Input should be greater than or equal to 8 (seen: 7)",
        ),
        ({"title": ""}, "`title`: String should have at least 1 character (seen: '')"),
        (
            {"name": "St Mary's"},
            "`name`: String should match pattern '^[a-z][a-z0-9-]{0,39}$' (seen: \"St Mary's\")",
        ),
        (
            {"name": "../x"},
            "`name`: String should match pattern '^[a-z][a-z0-9-]{0,39}$' (seen: '../x')",
        ),
        ({"tls": {"certificate": "a.pem"}}, "`tls.key` is missing"),
        (
            {"tls": {"certificate": "a.pem", "key": "b.pem", "certificat": "x"}},
            "`tls.certificat` is not a field; did you mean `certificate`?",
        ),
    ],
)
def test_field_that_does_not_fit_is_named(
    tmp_path: Path, fields: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({**MINIMAL, **fields}))
    file = tmp_path / "site.yaml"
    assert refusal(tmp_path) == f"{file} is not valid: {sentence}"


def test_field_that_a_person_types_is_checked_alike() -> None:
    assert checked_config(**MINIMAL, port=None) == SiteConfig.model_validate(MINIMAL)
    with pytest.raises(ConfigurationError) as refused:
        checked_config(**MINIMAL, port=0, sandbox="none")
    assert str(refused.value) == (
        "`port`: Input should be greater than or equal to 1 (seen: 0); "
        "`sandbox`: Input should be 'bubblewrap' or 'process' (seen: 'none')"
    )


@pytest.mark.parametrize("field", ["name", "title"])
def test_missing_field_is_named(tmp_path: Path, field: str) -> None:
    fields = {k: v for k, v in MINIMAL.items() if k != field}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(fields))
    assert refusal(tmp_path) == f"{tmp_path / 'site.yaml'} is not valid: `{field}` is missing"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name: [", "site.yaml is not YAML"),
        (b"name: \xff", "site.yaml is not YAML"),
        (b"", "site.yaml is not valid: `document`: "),
        (b"- a\n", "site.yaml is not valid: `document`: "),
    ],
)
def test_file_that_is_not_a_mapping_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "site.yaml").write_bytes(content)
    assert words in refusal(tmp_path)


@pytest.mark.parametrize("name", ["none", ""])
def test_missing_site_is_told_with_what_to_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert refusal(path) == (
        f"there is no site at {path}; make one with `sitegate init NAME`, or name it with --site "
        "or SITEGATE_SITE"
    )


@pytest.mark.parametrize(
    ("port", "host", "url"),
    [
        (1, "127.0.0.1", "https://127.0.0.1:1"),
        (65_535, "imaging.example", "https://imaging.example:65535"),
        (8443, "::1", "https://[::1]:8443"),
    ],
)
def test_address_of_a_site(tmp_path: Path, port: int, host: str, url: str) -> None:
    assert load(tmp_path, port=port, host=host).url == url


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    site = load(
        tmp_path, state="elsewhere", tls={"certificate": "own/a.pem", "key": "/etc/own/b.pem"}
    )
    assert site.state == tmp_path / "elsewhere"
    assert site.keys == tmp_path / "elsewhere/keys"
    assert site.certificate == tmp_path / "own/a.pem"
    assert site.certificate_key == Path("/etc/own/b.pem")


def test_policy_that_is_missing_or_invalid_is_a_configuration_error(tmp_path: Path) -> None:
    site = load(tmp_path)
    with pytest.raises(ConfigurationError, match="nothing runs without one"):
        site.policy()
    (tmp_path / "policy.yaml").write_text("name: x\n")
    with pytest.raises(ConfigurationError, match="`privacy` is missing"):
        site.policy()


def test_own_database_is_used_where_it_is_named(tmp_path: Path) -> None:
    site = load(tmp_path, database="sqlite:////srv/site.db")
    assert site.database_url == "sqlite:////srv/site.db"


def test_every_field_is_described() -> None:
    fields = SiteConfig.model_fields
    assert [name for name, field in fields.items() if not field.description] == []

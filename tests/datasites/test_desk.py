"""A person's desk: commands with their name set, and sentences where they fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from datasites.desk import Desk, read_desks
from datasites.errors import ConfigurationError, SiteError
from datasites.new_site import example_config, example_policy, make_site

SECRET = "a-password-of-olivia"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site that does not run."""
    path = tmp_path_factory.mktemp("desk") / "site"
    make_site(
        path, example_config("st-marys"), example_policy(), "olivia@x.example", "Olivia", SECRET
    )
    return path


def test_a_desk_shows_what_a_command_says(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Desk(path, "olivia@x.example", SECRET)("audit verify")
    assert "Intact: " in capsys.readouterr().out


def test_a_command_that_fails_is_one_sentence_without_colours(path: Path) -> None:
    with pytest.raises(SiteError) as caught:
        Desk(path, "olivia@x.example", SECRET)("request list")
    said = "sitegate request list: the site does not run; start it with `sitegate serve`"
    assert str(caught.value) == said
    assert caught.value._render_traceback_() == [f"SiteError: {said}"]


def test_a_desk_keeps_its_password_to_itself(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "owners.yaml"
    seat = {"site": str(path), "person": "olivia@x.example", "password": SECRET}
    file.write_text(yaml.safe_dump({"st-marys": seat}))
    desk = read_desks(file)["st-marys"]
    assert repr(desk) == "Desk(olivia@x.example at St Mary's)"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("- a list", "no file of desks"),
        ("st-marys: {person: olivia@x.example}", "no file of desks"),
        ("st-marys: {site: x, person: y, password: z, more: 1}", "no file of desks"),
    ],
)
def test_a_file_that_is_no_file_of_desks_is_said_so(
    tmp_path: Path, content: str | None, says: str
) -> None:
    file = tmp_path / "owners.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationError, match=says):
        read_desks(file)

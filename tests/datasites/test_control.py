"""How the tools tell a site that does not run from one that is busy or says no."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from datasites import control
from datasites.control import Control, short_path
from datasites.errors import ConfigurationError, SiteError


def test_without_a_site_behind_the_socket_it_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    for _ in ("no socket", "a socket that a killed site left"):
        with pytest.raises(ConfigurationError, match="the site does not run; start it with"):
            Control(path).status()
        with socket.socket(socket.AF_UNIX) as left, short_path(path) as name:
            if not path.exists():
                left.bind(name)


def test_a_site_that_does_not_answer_in_time_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PATIENCE_S", 0.1)
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        with short_path(path) as name:
            busy.bind(name)
        busy.listen()
        with pytest.raises(SiteError) as told:
            Control(path).rehearse(7)
    assert str(told.value) == "the site is still at work on it; see `sitegate request show`"
    assert told.value.exit_code == 1

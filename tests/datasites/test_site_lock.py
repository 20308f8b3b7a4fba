"""Two processes never change a site's state at the same time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import factories
from datasites.adopted_policy import adopt_while_stopped
from datasites.errors import ConfigurationError
from datasites.new_site import example_config, example_policy, make_site
from datasites.server import serve
from datasites.site_lock import only_one

OWNER = "olivia@st-marys.example"


def test_the_lock_is_held_by_one_and_free_afterwards(tmp_path: Path) -> None:
    lock = tmp_path / "site.lock"
    with only_one(lock, "first"):
        with pytest.raises(ConfigurationError, match="second"), only_one(lock, "second"):
            pass
        assert lock.read_text() == f"{os.getpid()}\n"  # still the holder's
    with only_one(lock, "third"):
        assert lock.read_text() == f"{os.getpid()}\n"


def test_whoever_has_to_wait_is_told_what_they_wanted(tmp_path: Path) -> None:
    config, policy = example_config("st-marys"), example_policy()
    site = make_site(tmp_path / "site", config, policy, OWNER, OWNER, factories.PASSWORD)
    with only_one(site.state / "site.lock", ""):
        with pytest.raises(ConfigurationError, match="another process is at work on this site"):
            adopt_while_stopped(site, OWNER, factories.PASSWORD, policy.read_text(), "why")
        before = os.umask(0)
        try:
            with pytest.raises(ConfigurationError, match="this site runs already; stop it first"):
                serve(site)
        finally:
            os.umask(before)

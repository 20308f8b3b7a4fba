"""Groups of commands are imported when they are used, and listed whether they are or not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from datasites.cli import app
from datasites.late_commands import GROUPS


def test_all_groups_stand_in_the_help() -> None:
    said = CliRunner().invoke(app, ["--help"]).stdout
    for name in (*GROUPS, "init", "serve", "status", "account", "page"):
        assert f"│ {name} " in said


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_explains_itself(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert f" {name} [OPTIONS] COMMAND [ARGS]..." in done.stdout
    assert "--install-completion" not in done.stdout


def test_a_name_that_is_no_command_is_said_so() -> None:
    done = CliRunner().invoke(app, ["reqest"])
    assert done.exit_code == 2
    assert "No such command 'reqest'" in done.output


def test_a_command_does_not_import_what_others_need() -> None:
    program = (
        "import sys; from datasites.cli import app; sys.argv = ['sitegate', 'policy', '--help']\n"
        "try: app()\n"
        "finally: print(sorted({'pydicom', 'syft', 'torch', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"

"""Groups of commands that are imported when they are used: one command does not wait for all."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from typer.core import TyperGroup
from typer.main import get_group

GROUPS = {
    "dataset": "datasites.dataset_commands:dataset_app",
    "request": "datasites.request_commands:request_app",
    "person": "datasites.person_commands:person_app",
    "audit": "datasites.audit_commands:audit_app",
    "privacy": "datasites.privacy_commands:privacy_app",
    "policy": "datasites.policy_commands:policy_app",
    "evidence": "datasites.evidence_commands:evidence_app",
}
"""Name of a group of commands -> where its Typer app is."""


class LateCommands(TyperGroup):
    """The commands of `sitegate`, and `GROUPS` beside them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the order in which the help shows them."""
        return [*GROUPS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, None if there is none."""
        if cmd_name not in GROUPS:
            return super().get_command(ctx, cmd_name)
        module, _, name = GROUPS[cmd_name].partition(":")
        group = get_group(getattr(import_module(module), name))
        group.name = cmd_name
        return group

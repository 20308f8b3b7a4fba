"""The policy in force: adopted by a named owner, copied into the records, changed only that way.

`policy.yaml` is where a hospital writes; what is in force is what an owner adopted. A site does not
start on a file that nobody adopted, so an edit is never in force, or out of force, unnoticed.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from datasites.audit_log import AuditLog, Event
from datasites.config import Site
from datasites.errors import AccountError, ConfigurationError, DecisionError, RecordError
from datasites.files import sync_directory, write_private
from datasites.keys import load_site_key
from datasites.people import Acting, Role, check_person, named_in_log
from datasites.records import PolicyRow, Records, utc_now
from datasites.site_lock import only_one
from policies.document import Policy, PolicyError, parse_policy


def adopt_policy(
    site: Site, records: Records, audit: AuditLog, acting: Acting, text: str, reason: str
) -> tuple[Policy, int]:
    """Make a policy the one in force; the event first, then the record, then `policy.yaml`.

    Standing approvals stop until they are confirmed, also when the same policy comes back.

    Returns:
        The policy, and the number of this adoption.

    Raises:
        ConfigurationError: The text is not a valid policy.
        DecisionError: The person is no owner, gave no reason, or it is in force already.
        RecordError: It cannot be written; nothing was changed.
    """
    policy = parsed(text)
    if acting.role is not Role.OWNER:
        raise DecisionError(f"{acting.email} is {acting.role}; an owner adopts a policy")
    if not reason.strip():
        raise DecisionError("give a reason for the change, for the log")
    before, file = last_adopted(records), site.path / site.config.policy
    if before and before.sha256 == policy.sha256 and before.text == text:
        raise DecisionError(f"{policy.title} is in force already; nothing changes")
    draft = _draft(file, text)
    audit.append(
        Event.POLICY_CHANGED,
        acting.email,
        policy.title,
        role=acting.role,
        decision="adopt",
        reason=reason.strip(),
        objects={
            "policy_sha256": policy.sha256,
            **({"previous_policy_sha256": before.sha256} if before else {}),
        },
    )
    adoption = remember_policy(records, policy, text, acting.email, reason.strip())
    draft.replace(file)
    sync_directory(file.parent)
    return policy, adoption


def _draft(file: Path, text: str) -> Path:
    """The text on the disk beside the file whose place it takes: from there on there is room."""
    draft = file.with_name(f".{file.name}.adopted")
    try:
        write_private(draft, text.encode(), 0o644)
    except OSError as error:
        raise RecordError(
            f"the policy cannot be written beside {file}; nothing was changed. Is the disk full?"
        ) from error
    return draft


def adopt_while_stopped(site: Site, person: str, password: str, text: str, reason: str) -> Policy:
    """Adopt a policy while the site does not run.

    Raises:
        ConfigurationError: Another process is at work on the site, or the text is not a valid
            policy.
        AccountError: The password is wrong.
        DecisionError: The person is no owner, or gave no reason.
    """
    busy = "another process is at work on this site; try again"
    with only_one(site.state / "site.lock", busy):
        audit = AuditLog(site.audit, load_site_key(site.keys), site.config.name)
        records = Records(site.database_url)
        try:
            try:
                acting = check_person(records, person, password)
            except AccountError as error:
                actor, role = named_in_log(records, person)
                audit.append(
                    Event.LOGIN_REFUSED, actor, "policy", role=role, wanted_to="adopt a policy",
                    reason=str(error),
                )  # fmt: skip
                raise
            return adopt_policy(site, records, audit, acting, text, reason)[0]
        finally:
            records.close()
            audit.close()


def remember_policy(records: Records, policy: Policy, text: str, person: str, reason: str) -> int:
    """Copy a policy into the records, with its comments; the number of the adoption."""
    row = PolicyRow(
        sha256=policy.sha256, text=text, adopted_at=utc_now(), adopted_by=person, reason=reason
    )
    with records.write() as session:
        session.add(row)
    return row.id


def last_adopted(records: Records) -> PolicyRow | None:
    """The policy that was adopted last."""
    with records.read() as session:
        return session.scalars(select(PolicyRow).order_by(PolicyRow.id.desc())).first()


def adopted_policies(records: Records) -> list[PolicyRow]:
    """Every policy that was in force, newest first."""
    with records.read() as session:
        return list(session.scalars(select(PolicyRow).order_by(PolicyRow.id.desc())))


def policy_in_force(site: Site, records: Records) -> tuple[Policy, int]:
    """The adopted policy and the number of its adoption, if `policy.yaml` says the same.

    Raises:
        ConfigurationError: The file is missing, not valid, or not what was adopted.
    """
    policy, adopted = site.policy(), last_adopted(records)
    if adopted is None or adopted.sha256 != policy.sha256:
        last = f"what was adopted last has sha256 {adopted.sha256[:12]}…. " if adopted else ""
        raise ConfigurationError(
            f"{site.path / site.config.policy} is {policy.title} (sha256 {policy.sha256[:12]}…), "
            f"which nobody adopted; the site does not start on it. {last}An owner adopts it with "
            '`sitegate policy adopt FILE --reason "…"`, or restores the file'
        )
    return policy, adopted.id


def parsed(text: str) -> Policy:
    """A policy from its text; a `ConfigurationError` names what does not fit."""
    try:
        return parse_policy(text)
    except PolicyError as error:
        raise ConfigurationError(str(error)) from error

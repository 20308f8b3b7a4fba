"""Makes a site: directory, configuration, policy, keys, and the first person who may decide."""

from __future__ import annotations

import os
import shutil
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import ValidationError

from datasites.adopted_policy import remember_policy
from datasites.audit_log import AuditLog, Event
from datasites.config import Site, SiteConfig, load_site
from datasites.errors import ConfigurationError
from datasites.files import write_private
from datasites.keys import load_site_key, make_keys
from datasites.people import Role, add_person, check_password_length
from datasites.records import Records
from policies.document import PolicyError, load_policy
from policies.strict import validation_sentences


def make_site(
    path: Path,
    config: SiteConfig,
    policy: Path,
    owner_email: str,
    owner_name: str,
    owner_password: str,
) -> Site:
    """Make the site directory `path` and everything in it.

    Args:
        path: Where; it must not exist, or be empty.
        config: The configuration to write.
        policy: A policy file to copy; the hospital edits its copy.
        owner_email: First person who may decide.
        owner_name: Their name.
        owner_password: Their password; it is stored as an argon2id hash only.

    Raises:
        ConfigurationError: The directory is taken, or the policy is not valid.
        AccountError: The password is too short.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigurationError(f"{path} is not empty; a site needs a directory of its own")
    try:
        load_policy(policy)
    except PolicyError as error:
        raise ConfigurationError(str(error)) from error
    check_password_length(owner_password, config.minimum_password)
    umask = os.umask(0o077)
    try:
        return _make_site(path, config, policy, owner_email, owner_name, owner_password)
    finally:
        os.umask(umask)


def _make_site(
    path: Path,
    config: SiteConfig,
    policy: Path,
    owner_email: str,
    owner_name: str,
    owner_password: str,
) -> Site:
    path.mkdir(parents=True, exist_ok=True)
    state = path / config.state
    for directory in (state, state / "keys", state / "datasets"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(directory, 0o700)
    (path / config.policy).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(policy, path / config.policy)
    plain = config.model_dump(mode="json", exclude_none=True)
    header = "# A site of Sitegate. Fields and their meaning: datasites/config.py, SiteConfig.\n"
    write_private(
        path / "site.yaml", (header + yaml.safe_dump(plain, sort_keys=False)).encode(), 0o644
    )
    make_keys(state / "keys", config.host, config.name)
    site = load_site(path)
    audit = AuditLog(site.audit, load_site_key(site.keys), config.name)
    records = Records(site.database_url)
    try:
        audit.append(Event.SITE_CREATED, "site", config.name, public_key=_public_key(site))
        audit.append(Event.ACCOUNT_CREATED, "site", owner_email, account_role=Role.OWNER)
        made, reason = site.policy(), "the site was made with it"
        audit.append(
            Event.POLICY_CHANGED,
            "site",
            made.title,
            decision="adopt",
            reason=reason,
            policy_sha256=made.sha256,
        )
        remember_policy(records, made, policy.read_text(encoding="utf-8"), "site", reason)
        audit.checkpoint()
        add_person(records, owner_email, owner_name, owner_password, config.minimum_password)
    finally:
        records.close()
        audit.close()
    return site


def example_policy(name: str = "university-hospital") -> Path:
    """A policy that comes with the product, to copy and edit."""
    return Path(str(files("policies").joinpath(f"{name}.yaml")))


def example_config(name: str) -> SiteConfig:
    """An example hospital of `datasites/sites`.

    Raises:
        ConfigurationError: There is no such example.
    """
    file = Path(str(files("datasites").joinpath(f"sites/{name}.yaml")))
    try:
        return SiteConfig.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(f"there is no example hospital `{name}`") from error


def checked_config(**fields: object) -> SiteConfig:
    """A configuration from a person's input; a `ConfigurationError` names what does not fit."""
    try:
        return SiteConfig.model_validate({k: v for k, v in fields.items() if v is not None})
    except ValidationError as error:
        raise ConfigurationError("; ".join(validation_sentences(error, SiteConfig))) from error


def _public_key(site: Site) -> str:
    return load_site_key(site.keys).public_hex

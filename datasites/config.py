"""A site's configuration: one YAML file beside its state, read once.

A site is a directory: `site.yaml` (this model), `policy.yaml` (the hospital's policy) and `state/`
(mode 0700: records, keys, datasets). Secrets never stand in the YAML; they are key files in
`state/keys/`, or come from the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError

from datasites.errors import ConfigurationError
from policies.document import Policy, PolicyError, load_policy
from policies.strict import Strict, validation_sentences

SiteName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]


class TlsFiles(Strict):
    """The hospital's own certificate, instead of the one made for trials."""

    certificate: Path
    """PEM file: the site's certificate, with its chain."""
    key: Path
    """PEM file: the private key of the certificate."""


class SiteConfig(Strict):
    """How one hospital runs its datasite."""

    name: SiteName
    """Short name: lower-case letters, digits and dashes."""
    title: Annotated[str, StringConstraints(min_length=1, max_length=80)]
    """The hospital's name, as people read it."""
    host: str = "127.0.0.1"
    """Address to listen on. The default is reached from this machine only."""
    port: int = Field(default=8443, ge=1, le=65_535)
    """TCP port of the datasite (TLS)."""
    policy: Path = Path("policy.yaml")
    """The policy, relative to this file."""
    state: Path = Path("state")
    """The state directory, relative to this file."""
    tls: TlsFiles | None = None
    """The hospital's own certificate; without it the site uses the one that `init` made."""
    sandbox: Literal["bubblewrap", "process"] = "bubblewrap"
    """`process` runs approved code without a cage, with the rights of this user: trials only."""
    threads: int = Field(default=1, ge=1, le=256)
    """Threads that one run computes with."""
    max_body_mb: float = Field(default=64, gt=0, le=2000)
    """Largest call that is read, in megabytes."""
    answer_within_s: float = Field(default=15, gt=0, le=300)
    """Seconds after which a call for a run is answered, if only to say that the run is under way.
    Less than what proxies on the way allow an idle connection; a minute is usual."""
    requests_per_day: int = Field(default=200, ge=1, le=100_000)
    """Most requests that one researcher may submit in 24 hours."""
    database: str | None = None
    """SQLAlchemy URL of the site's own records; without it, SQLite in the state directory."""
    minimum_password: int = Field(default=12, ge=8, le=128)
    """Fewest characters of a password."""


class Site:
    """A site directory: the configuration with all paths made absolute."""

    def __init__(self, path: Path, config: SiteConfig) -> None:
        self.path = path
        self.config = config
        self.state = (path / config.state).resolve()
        self.keys = self.state / "keys"
        self.datasets = self.state / "datasets"
        self.lineages = self.state / "lineages"
        self.audit = self.state / "audit.jsonl"
        self.control_socket = self.state / "control.sock"

    @property
    def url(self) -> str:
        """Where researchers reach the site."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"https://{host}:{self.config.port}"

    @property
    def database_url(self) -> str:
        """Where the site's own records are."""
        return self.config.database or f"sqlite:///{self.state / 'site.db'}"

    @property
    def certificate(self) -> Path:
        """PEM file of the certificate that the site serves."""
        own = self.config.tls
        return self.path / own.certificate if own else self.keys / "tls_certificate.pem"

    @property
    def certificate_key(self) -> Path:
        """PEM file of the certificate's private key."""
        own = self.config.tls
        return self.path / own.key if own else self.keys / "tls_key.pem"

    def policy(self) -> Policy:
        """The policy in force, read from its file.

        Raises:
            ConfigurationError: It is missing or invalid; the message names the field.
        """
        try:
            return load_policy(self.path / self.config.policy)
        except PolicyError as error:
            raise ConfigurationError(str(error)) from error


def load_site(path: Path) -> Site:
    """The site at `path`: its directory, or its `site.yaml`.

    Raises:
        ConfigurationError: The file is missing or invalid; the message names the field.
    """
    file = path / "site.yaml" if path.is_dir() else path
    try:
        plain = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"there is no site at {path}; make one with `sitegate init NAME`, "
            "or name it with --site or SITEGATE_SITE"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not YAML") from error
    try:
        config = SiteConfig.model_validate(plain)
    except ValidationError as error:
        sentences = "; ".join(validation_sentences(error, SiteConfig))
        raise ConfigurationError(f"{file} is not valid: {sentences}") from error
    return Site(file.parent.resolve(), config)

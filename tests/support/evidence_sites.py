"""Sites for tests of evidence: real records and a real log, without syft and without a cage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

import factories
from datasites.adopted_policy import adopt_policy
from datasites.audit_log import Event
from datasites.catalogue import write_version
from datasites.certificate import Certificate, Method, TextSearch, sign_certificate
from datasites.decisions import Shown, approve
from datasites.new_site import checked_config, make_site
from datasites.open_site import OpenSite
from datasites.people import Acting, Role, add_person
from datasites.records import PublishedDataset, RehearsalRow, Researcher, utc_now
from datasites.rehearsal import Rehearsal, latest_rehearsal
from datasites.requests import get_request, submit_request
from policies.strict import canonical_json

RITA = "rita@uni.example"
OLIVIA = Acting("olivia@stmarys.example", Role.OWNER)
SAM = Acting("sam@stmarys.example", Role.SECOND)
CARLA = Acting("carla@stmarys.example", Role.COMPLIANCE)


class NoSyft:
    """The syft side of a site that has none."""

    def __init__(self) -> None:
        self._codes = 0

    def submit_code(self, *_: Any) -> tuple[str, str]:
        self._codes += 1
        return f"request-{self._codes}", f"code-{self._codes}"

    def mirror_decision(self, *_: Any) -> None:
        """Nothing to tell."""


class EvidenceSite:
    """St Mary's with one dataset version, three people and one researcher."""

    def __init__(self, path: Path, **policy: Any) -> None:
        text = policy_text(**policy)
        (path / "policy.yaml").write_text(text)
        config = checked_config(
            name="st-marys", title="St Mary's", host="127.0.0.1", port=8443, sandbox="process"
        )
        site = make_site(
            path / "site", config, path / "policy.yaml", OLIVIA.email, "Olivia", factories.PASSWORD
        )
        self.open, self.syft = OpenSite(site), NoSyft()
        for acting in (SAM, CARLA):
            add_person(
                self.open.records, acting.email, acting.email, factories.PASSWORD, 12, acting.role
            )
        self.version = self._publish()
        self._add_rita()

    @property
    def log(self) -> Path:
        return self.open.site.audit

    def append(self, event: Event, subject: str, actor: str = RITA, **fields: Any) -> None:
        self.open.audit.append(event, actor, subject, **fields)

    def noise(self, lines: int) -> None:
        """Lines that are not about any request here."""
        for k in range(lines):
            self.append(Event.LOGIN, "login", "mallory@uni.example", address=f"198.51.100.{k}")

    def submit(self, job: str = factories.DOUBLE_JOB, **changes: Any) -> int:
        """Submit a request for the dataset version; its number."""
        wanted = factories.terms(**{"version": self.version, **changes})
        terms = canonical_json(wanted.model_dump(mode="json")).decode()
        return submit_request(self.open, self.syft, RITA, job, terms).id

    def rehearse(self, number: int, actor: str = "site") -> None:
        """Record a rehearsal as one that ran."""
        row = get_request(self.open, number)
        self.append(
            Event.REQUEST_REHEARSED, f"R-{number}", actor,
            text_sha256=row.text_sha256, version=self.version,
        )  # fmt: skip
        report = Rehearsal(
            request=number, at=utc_now(), text_sha256=row.text_sha256, version=self.version,
            policy_sha256=self.open.policy.sha256, images=24,
            config={"rate": 0.5}, outcome="returned", seconds=0.25, memory_mb=12,
            metrics={"loss": 0.5}, examples=24, calls=(("arrays", 1),), probed=2,
            influence="no single image stands out",
        )  # fmt: skip
        with self.open.records.write() as session:
            session.add(RehearsalRow(request=number, at=report.at, report=report.model_dump_json()))

    def approve(self, number: int, acting: Acting = OLIVIA) -> None:
        report = latest_rehearsal(self.open, number)
        if report and report.policy_sha256 != self.open.policy.sha256:
            self.rehearse(number)
            report = latest_rehearsal(self.open, number)
        shown = Shown(self.open.policy.sha256, report.sha256 if report else "")
        approve(self.open, self.syft, number, acting, "as agreed in the steering group", shown)

    def adopt(self, reason: str = "smaller tables", **changes: Any) -> None:
        """Adopt another policy."""
        policy = adopt_policy(
            self.open.site, self.open.records, self.open.audit, OLIVIA, policy_text(**changes),
            reason,
        )  # fmt: skip
        self.open.take_policy(*policy)

    def start(self, number: int, round_number: int, attempt: int = 1) -> str:
        """A run that starts, as `datasites.runs` logs it; its id."""
        run = f"R-{number}/{round_number}/{attempt}"
        row = get_request(self.open, number)
        self.append(
            Event.RUN_STARTED, run, text_sha256=row.text_sha256, version=self.version,
            arguments_sha256=f"{round_number:064x}", sandbox="bubblewrap",
        )  # fmt: skip
        return run

    def release(self, number: int, round_number: int) -> str:
        """A run whose update leaves."""
        run = self.start(number, round_number)
        self.append(
            Event.UPDATE_RELEASED, run, update_sha256=f"{round_number + 100:064x}",
            bytes=16, arrays=1, metrics=["loss"], examples=120,
        )  # fmt: skip
        return run

    def close(self) -> None:
        self.open.close()

    def _publish(self) -> str:
        site = self.open

        def certify(_: object, arrays: dict[str, str]) -> bytes:
            return sign_certificate(certificate(arrays), site.key)

        version, card = write_version(
            site.site.datasets, factories.splits(), name="chest-xray",
            classes=("normal", "pneumonia"), source="synthetic", licence="free to use",
            description="", minimum_count=5, certify=certify,
        )  # fmt: skip
        self.append(Event.DATASET_PUBLISHED, card.name, "site", version=version)
        with site.records.write() as session:
            session.add(
                PublishedDataset(
                    version=version, name=card.name, published_at=utc_now(), syft_asset="asset"
                )
            )
        return version

    def _add_rita(self) -> None:
        institution = "Example University"
        self.append(
            Event.ACCOUNT_CREATED, RITA, "site",
            account_role="researcher", institution=institution,
        )  # fmt: skip
        with self.open.records.write() as session:
            session.add(
                Researcher(email=RITA, name="Rita", institution=institution, created_at=utc_now())
            )


def policy_text(**changes: Any) -> str:
    """A policy that allows `factories.terms()`, as a commented YAML text."""
    plain = factories.policy(**changes).model_dump(mode="json", exclude_none=True)
    return f"# What St Mary's allows.\n{yaml.safe_dump(plain, sort_keys=False)}"


def certificate(arrays: dict[str, str]) -> Certificate:
    """The certificate of a version with these arrays."""
    return Certificate(
        dataset="chest-xray", site="st-marys", source="folder",
        published_at="2026-01-01T00:00:00+00:00", published_by="olivia",
        methods=(Method(code="113100", meaning="Basic Application Confidentiality Profile"),),
        recipe_sha256="d" * 64, actions=(),
        text_search=TextSearch(tool="tesseract 5.3.0", searched=188, found=8),
        images=180, patients=90, smallest_group=30, quarantined={"text found in pixels": 8},
        recognisable={"yes": 0, "possibly": 0}, look_alikes=0, seed=0, arrays=arrays,
        standardisation_sha256=None, tools={"numpy": "1.24.4"},
    )  # fmt: skip


def write_folder(path: Path, files: dict[str, str]) -> Path:
    """An exported folder on disk."""
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name).write_bytes(text.encode())
    return path


def plain(files: dict[str, str], name: str) -> Any:
    """A JSON file of a folder."""
    return json.loads(files[name])

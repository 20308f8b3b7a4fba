"""A site with its records open: what the parts of a running site share."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from sqlalchemy import func, select

from datasites.adopted_policy import policy_in_force
from datasites.audit_log import AuditLog, Event, read_events
from datasites.catalogue import is_intact
from datasites.config import Site
from datasites.doctor import PROOFS, examine, proof_in, record
from datasites.errors import DatasetError, SandboxError
from datasites.keys import load_site_key
from datasites.ledger import Ledger
from datasites.lineage import retired_because
from datasites.privacy_ledger import Entry, entry_in_log
from datasites.private_run import PrivateCages, knows_patients
from datasites.records import Records, RequestRow
from datasites.runs_under_way import RunsUnderWay
from datasites.sandbox.bubblewrap import Bubblewrap, find_bubblewrap
from datasites.sandbox.cage import WORKER, Cage
from datasites.sandbox.private_training import TRAINER, card_folder, trainer_cage
from datasites.sandbox.proof import Check
from policies.contract import Terms
from policies.document import Policy
from policies.findings import Finding
from policies.proof_rules import Proof

ENDS = (
    Event.REQUEST_DENIED, Event.REQUEST_REVOKED, Event.REQUEST_WITHDRAWN, Event.REQUEST_EXPIRED,
)  # fmt: skip
"""Events after which nothing is approved or run under a request any more."""
MOCK_CAGE_IDLE_S = 20.0
"""How long the cage of a mock stays warm for another rehearsal."""

logger = logging.getLogger(__name__)


class SyftSide(Protocol):
    """What the rest of a site needs of syft; `syft_gate` provides it."""

    def submit_code(self, account: str, text: str, terms: Terms, number: int) -> tuple[str, str]:
        """Make a syft code request for an account; the ids of the request and of the code."""

    def mirror_decision(self, syft_request: str, approved: bool, reason: str) -> None:
        """Let syft's own status of a request say what was decided."""

    def publish(self, name: str, version: str) -> str:
        """Register a dataset version as handle and mock; the id of the handle."""

    def free_address(self, email: str) -> str:
        """The address as an account of it is kept; an `AccountError` if it is none, or taken."""

    def add_researcher(self, email: str, name: str, password: str) -> None:
        """Make an account that may submit and run."""


class OpenSite:
    """Configuration, policy, keys and open records of one site; one per process."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.config = site.config
        self.key = load_site_key(site.keys)
        self.bwrap: Bubblewrap | None = (
            find_bubblewrap() if site.config.sandbox == "bubblewrap" else None
        )
        self.records = Records(site.database_url)
        self.policy, self.adoption = policy_in_force(site, self.records)
        self.audit = AuditLog(site.audit, self.key, site.config.name)
        self.ledger = Ledger(self.records, site.state / "results")
        self.under_way = RunsUnderWay()
        self.deciding = threading.RLock()
        self.rehearsing = threading.Lock()
        self._examining = threading.Lock()
        self.ended: dict[int, Event] = {}
        """Requests that were denied, revoked, withdrawn or expired, as the log says; the database
        cannot undo it."""
        self.proof: Proof | None = None
        """What came of trying the cage the last time, as the log says."""
        self._last_request = 0
        self.unsettled: dict[str, list[Event]] = {str(r): [] for r in self.ledger.unsettled()}
        """Runs that had not ended when the site was last stopped, and their events."""
        self.charged: dict[str, Entry] = {}
        """Run -> what it cost the patients' privacy, as the log says; emptied when it is kept."""
        for line in read_events(site.audit):
            if (entry := entry_in_log(line)) is not None:
                self.charged.setdefault(entry.run, entry)
            if line["run"] in self.unsettled:
                self.unsettled[line["run"]].append(Event(line["event"]))
            if line["event"] in PROOFS:
                self.proof = proof_in(line)
            if (number := _request_number(line["subject"])) is not None:
                self._last_request = max(self._last_request, number)
                if line["event"] in ENDS:
                    self.ended[number] = Event(line["event"])
        self.findings: dict[tuple[int, str, str, str], list[Finding]] = {}
        """What a policy says about a request, by number and digests; it takes time to find."""
        self._cages: dict[tuple[str, str], Cage] = {}
        self._mock_cages: dict[tuple[str, str], Cage] = {}
        self._cages_turn = threading.Lock()
        self._running: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def cage(self, version: str) -> Cage:
        """The cage of a dataset version, made and warmed up when it is first asked for.

        Raises:
            DatasetError: The version was withdrawn, or its files are no longer what they were.
            SandboxError: The site is stopping.
        """
        folder = self.site.datasets / version
        return self._of_version(
            version, "code", lambda: Cage(folder, self.bwrap, self.config.threads)
        )

    def private_cages(self, version: str) -> PrivateCages:
        """The two cages of the hospital's own trainer for a version; raises as `cage`."""
        folder, threads = self.site.datasets / version, self.config.threads
        cards = card_folder(self.site.state / "cards" / version, folder)
        return PrivateCages(
            self._of_version(version, "card", lambda: Cage(cards, self.bwrap, threads)),
            self._of_version(version, "trainer", lambda: trainer_cage(folder, self.bwrap, threads)),
            knows_patients(folder),
        )

    def _of_version(self, version: str, kind: str, make: Callable[[], Cage]) -> Cage:
        if (reason := retired_because(self.site.lineages, version)) is not None:
            raise DatasetError(f"dataset version {version[:12]} was withdrawn: {reason}")
        with self._cages_turn:
            if self.under_way.is_stopping:
                raise SandboxError("the site is stopping")
            if (version, kind) not in self._cages:
                if not is_intact(self.site.datasets, version):
                    raise DatasetError(
                        f"the files of dataset version {version[:12]} are not as they were "
                        "published; nothing runs on them"
                    )
                cage = make()
                cage.start()
                self._cages[version, kind] = cage
            return self._cages[version, kind]

    def mock_cage(self, version: str, mock: Path) -> Cage:
        """The cage that holds a version's mock, for rehearsals."""
        return self._of_mock(version, "code", mock, WORKER)

    def private_mock_cages(self, version: str, mock: Path) -> PrivateCages:
        """The two cages in which a job that describes a model is rehearsed."""
        cards = card_folder(self.site.state / "cards" / f"mock-{version}", mock)
        return PrivateCages(
            self._of_mock(version, "card", cards, WORKER),
            self._of_mock(version, "trainer", mock, TRAINER),
            patients_known=True,
        )

    def _of_mock(self, version: str, kind: str, folder: Path, program: Mapping[str, Path]) -> Cage:
        with self._cages_turn:
            if (version, kind) not in self._mock_cages:
                self._mock_cages[version, kind] = Cage(
                    folder, self.bwrap, self.config.threads, MOCK_CAGE_IDLE_S, program
                )
            return self._mock_cages[version, kind]

    def next_request(self) -> int:
        """A number that no request had, refused ones included: the log knows them all."""
        with self.deciding, self.records.read() as session:
            highest = session.scalar(select(func.max(RequestRow.id))) or 0
            self._last_request = max(self._last_request, highest) + 1
            return self._last_request

    def take_policy(self, policy: Policy, adoption: int) -> None:
        """Let another policy be in force from now on."""
        with self.deciding:
            self.policy, self.adoption = policy, adoption
            self.findings.clear()

    def examine(self) -> list[Check]:
        """Try the cage, and put into the log what comes of it.

        Raises:
            RecordError: It cannot be written.
        """
        with self._examining:
            checks, bubblewrap_sha256 = examine(self.site)
            self.proof = record(self.audit, checks, bubblewrap_sha256)
        return checks

    def run_lock(self, request: int) -> threading.Lock:
        """Calls for runs of one request take turns: they are counted one after the other."""
        with self._cages_turn:
            return self._running[request]

    @property
    def sandbox_in_words(self) -> str:
        """Which sandbox runs are in, for the log."""
        if self.bwrap is None:
            return "process (no cage: the configuration says so)"
        return f"bubblewrap from {self.bwrap.origin}, sha256 {self.bwrap.sha256}"

    def close(self) -> None:
        """End the cages and what runs in them, and close the records."""
        self.under_way.stop()
        with self._cages_turn:
            for cage in (*self._cages.values(), *self._mock_cages.values()):
                cage.close()
        self.under_way.close()
        self.records.close()
        self.audit.close()


def _request_number(subject: str) -> int | None:
    """The number in a subject such as `R-7`; None for others, such as a run's."""
    digits = subject.removeprefix("R-")
    return int(digits) if subject.startswith("R-") and digits.isdecimal() else None

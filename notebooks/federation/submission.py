"""Submit a job to sites, follow the decisions, and make single runs."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from federation.checkpoint import Checkpoint
from federation.dataset_table import in_order
from federation.errors import ConnectionLostError, FederationError, PolicyWarning, UntrustedError
from federation.job import Job
from federation.notebook_tables import BAD, GOOD, Cell, Datasets, Findings, Row, html_table
from federation.privacy_costs import PrivacyCosts, privacy_costs
from federation.saved_study import read_study, save_study
from federation.side_by_side import ask_all, ask_each
from federation.sites import Site
from federation.standings import WAITING, standing_of, standings_table
from federation.study_checks import check_data
from federation.terms import Wanted
from policies.arrays import Arrays, MalformedArraysError, pack, unpack
from policies.findings import Finding, Severity, finding_from_dict, refusals, verdict
from policies.request_rules import Ask, DatasetFacts, check_request
from policies.strict import canonical_json
from policies.text_lines import lines_of

if TYPE_CHECKING:
    from federation.rounds_result import RoundsResult

RUNNING, UNKNOWN = "running", "unknown"
"""States of a run: under way; and not known to the site, which wants its weights (again)."""
MOST_TOLD = 4
"""Refusals of one policy that a warning tells."""
LEAST_WAIT_S = 1.0
"""Seconds from one question about a run to the next, at least."""


@dataclass(frozen=True, slots=True)
class RunUpdate:
    """What one run at one site released."""

    weights: Arrays
    counts: Arrays
    metrics: dict[str, float]
    examples: int
    run: str


class Federation:
    """The sites you are logged in to, in the order of the roster."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self._sites = {site.name: site for site in sites}

    def __iter__(self) -> Iterator[Site]:
        return iter(self._sites.values())

    def __len__(self) -> int:
        return len(self._sites)

    def __getitem__(self, name: str) -> Site:
        try:
            return self._sites[name]
        except KeyError as error:
            names = ", ".join(self._sites)
            raise FederationError(
                f"there is no site `{name}`; the roster has {names}. Take one of them, or add it "
                "to the roster"
            ) from error

    @property
    def names(self) -> list[str]:
        """Short names of the sites."""
        return list(self._sites)

    @property
    def absent(self) -> list[Site]:
        """Sites that have not answered since `connect`; each is asked again with every call."""
        return [site for site in self if site.is_absent]

    def datasets(self) -> pd.DataFrame:
        """Every dataset version at every site, as the cards describe them."""
        rows = [
            {
                "site": site.title,
                "dataset": dataset.name,
                "version": dataset.version[:12],
                "shape": " x ".join(map(str, dataset.card["shape"])),
                "classes": ", ".join(dataset.card["classes"]),
                **{
                    split: _total(counts)
                    for split, counts in in_order(dataset.card["counts"]).items()
                },
            }
            for site in self
            if not site.is_absent
            for dataset in site.datasets
        ]
        known = dict.fromkeys([column for row in rows for column in row], "–")
        absent = {"dataset": "✕ does not answer"}
        return Datasets(rows + [{**known, "site": site.title, **absent} for site in self.absent])

    def check(self, job: Job, wanted: Wanted, sites: Sequence[str] | None = None) -> pd.DataFrame:
        """What each hospital's policy says about a request, before it is sent."""
        rows = []
        for name in sites or self.names:
            for finding in check_at(self[name], job, wanted):
                rows.append({"site": self[name].title, **_row(finding)})
        return Findings(rows)

    def submit(self, job: Job, wanted: Wanted, sites: Sequence[str] | None = None) -> Study:
        """Send a job to sites, where people decide about it.

        A policy's refusals are for the hospital's people to see, and for you as a
        `PolicyWarning`: they cannot approve the request as it is.

        Raises:
            RefusedError: A site could not take it at all.
            FederationError: A site has no such dataset, or the sites' data differ and the job
                gives weights back; nothing was submitted then.
        """
        names = list(self.names if sites is None else sites)
        if isinstance(sites, str) or not names:
            raise FederationError(f"sites={sites!r} names no site; give a list of their names")
        cards = [self[name].dataset(wanted.dataset).card for name in names]
        if wanted.contract.weights:
            check_data([self[name].title for name in names], cards)
        self.warn_of_refusals(job, wanted, names)
        study = Study(self, job, wanted)
        for name in names:
            study.submit(name)
        return study

    def warn_of_refusals(self, job: Job, wanted: Wanted, names: Sequence[str]) -> None:
        """Warn of what the sites' policies, as they are now, forbid about a request."""
        ask_all(names, lambda name: self[name].refresh())
        for name in names:
            if refused := refusals(check_at(self[name], job, wanted)):
                more = f" And {len(refused) - MOST_TOLD} more." if len(refused) > MOST_TOLD else ""
                told = " ".join(finding.sentence for finding in refused[:MOST_TOLD])
                warnings.warn(
                    f"nobody at {self[name].title} can approve {job.name}, as far as its policy "
                    f"and card tell. {told}{more}",
                    PolicyWarning,
                    stacklevel=3,
                )

    def study(self, job: Job, wanted: Wanted, requests: Mapping[str, int]) -> Study:
        """Take up a study that was submitted before.

        Args:
            job: The job, the same text as then.
            wanted: The terms, as then.
            requests: Site -> number of the request there, as in `Study.requests`.

        Raises:
            FederationError: A site has no such request of yours, or it was for another text.
        """
        study = Study(self, job, wanted)
        for name, number in requests.items():
            try:
                study.take_up(name, number)
            except ConnectionLostError:
                if not self[name].is_absent:
                    raise
                study.expect(name, number)
        return study

    def resume(self, checkpoint: str | Path, job: Job, wanted: Wanted) -> Study:
        """Take up the study whose rounds are saved in a folder (`federation.checkpoint`).

        Raises:
            FederationError: There is no checkpoint, or a site has no such request of yours.
        """
        return self.study(job, wanted, Checkpoint(checkpoint).requests)

    def saved_study(self, file: str | Path) -> Study:
        """Take up the study that `Study.save` wrote into a file.

        Raises:
            FederationError: The file is no saved study, or a site has no such request of yours.
        """
        saved = read_study(file)
        return self.study(*saved.parts(), saved.requests)

    def problems(self) -> dict[str, str]:
        """Ask every site for its description; site -> why that failed, empty when it did not."""
        found, failed = ask_each(self.names, lambda name: self[name].refresh())
        return {name: "" if name in found else str(failed[name]) for name in self.names}

    def _repr_html_(self) -> str:
        problems = self.problems()
        rows: list[Row] = [
            [
                Cell(site.title, below=f'sites["{site.name}"]'),
                Cell("✕ cannot be used now", BAD, problems[site.name])
                if problems[site.name]
                else Cell("● answers", GOOD),
                site.url,
                *self._said_of_itself(site),
            ]
            for site in self
        ]
        return html_table(["hospital", "state", "address", "policy", "datasets"], rows)

    @staticmethod
    def _said_of_itself(site: Site) -> Row:
        if site.is_absent:
            return ["–", "–"]
        return [Cell(site.policy.title, below=site.policy.about or ""), len(site.datasets)]


class Study:
    """One job at several sites: its requests, and the runs under them."""

    def __init__(self, federation: Federation, job: Job, wanted: Wanted) -> None:
        self.federation, self.job, self.wanted = federation, job, wanted
        self._codes: dict[str, str] = {}
        self.requests: dict[str, int] = {}
        """Site -> number of the request there."""
        self.result: RoundsResult | None = None
        """What `run_rounds` reached last, also when it was stopped or fell below its quorum."""

    @property
    def sites(self) -> list[str]:
        """Sites that have a request, in the order of the roster."""
        return [name for name in self.federation.names if name in self._codes]

    def submit(self, name: str, *, runs: int | None = None, follows: int | None = None) -> int:
        """Submit at one site, again if need be, there with another number of runs.

        Args:
            name: The site.
            runs: Another number of runs than the study's.
            follows: Number of the request there that this one takes the place of; it is withdrawn
                if nobody had decided about it.

        Returns:
            The number of the request at the site.

        Raises:
            RefusedError: The site could not take the request.
        """
        site, wanted = self.federation[name], self.wanted
        if runs is not None:
            wanted = replace(wanted, runs=runs)
        terms = wanted.at(site.dataset(wanted.dataset).version, self.job.entry)
        answer = site.call(
            "code.request_code_execution",
            job=self.job.text,
            terms=canonical_json(terms.model_dump(mode="json")).decode(),
            follows=follows or 0,
        )
        request = json.loads(answer)
        self._codes[name], self.requests[name] = request["code"], request["request"]
        return int(request["request"])

    def resubmit(self, job: Job, sites: Sequence[str] | None = None) -> Study:
        """Submit another text in the place of this study's, at sites that asked for changes.

        Args:
            job: The new text.
            sites: Where; by default every site that asked for changes.

        Returns:
            The study of the new text, with the new requests.
        """
        if sites is None:
            states = self.states()
            sites = [name for name in self.sites if states[name] == "changes requested"]
        if not sites:
            raise FederationError("no site asked for changes; name the `sites` to submit to again")
        self.federation.warn_of_refusals(job, self.wanted, sites)
        study = Study(self.federation, job, self.wanted)
        for name in sites:
            study.submit(name, follows=self.requests.get(name))
        return study

    def withdraw(self, reason: str, sites: Sequence[str] | None = None) -> None:
        """Take the requests back, at some sites or at all: nothing more runs on them.

        Raises:
            RefusedError: A request is over already.
        """
        for name in sites or self.sites:
            self.federation[name].call(
                "sitegate.withdraw", request=self.requests[name], reason=reason
            )

    def comments(self) -> pd.DataFrame:
        """What hospitals said about lines of the job, with the lines."""
        lines = lines_of(self.job.text)
        rows = [
            {
                "site": self.federation[name].title,
                "line": comment["line"],
                "text": lines[comment["line"] - 1].strip() if comment["line"] <= len(lines) else "",
                "comment": comment["text"],
            }
            for name, request in self._own_requests().items()
            for comment in request["comments"]
        ]
        return pd.DataFrame(rows, columns=["site", "line", "text", "comment"])

    def save(self, file: str | Path) -> Path:
        """Write job, terms and numbers of the requests into a file, for `sites.saved_study`.

        Raises:
            FederationError: Nothing was submitted yet, or the file cannot be written.
        """
        return save_study(self, file)

    def take_up(self, name: str, number: int) -> None:
        """Go on with a request that was submitted before.

        Raises:
            FederationError: The site has no such request of yours, or it was for another text.
        """
        listed = json.loads(self.federation[name].call("sitegate.requests"))
        found = [r for r in listed if r["request"] == number]
        if not found:
            raise FederationError(f"{name} has no request R-{number} of yours")
        if found[0]["text_sha256"] != self.job.sha256:
            raise FederationError(f"request R-{number} at {name} was for another text of the job")
        self._codes[name], self.requests[name] = found[0]["code"], number

    def expect(self, name: str, number: int) -> None:
        """Take a request up with the first run that its site answers."""
        self._codes[name], self.requests[name] = "", number

    def states(self) -> dict[str, str]:
        """Site -> the state there, such as `pending`, `approved` or `changes requested`."""
        return {name: request["state"] for name, request in self._own_requests().items()}

    def status(self) -> pd.DataFrame:
        """State, reason, budget and policy verdict of the request at each site."""
        rows = [
            {
                "site": self.federation[name].title,
                "request": f"R-{request['request']}",
                "state": _state(request),
                "reason": request["reason"],
                "comments": len(request["comments"]),
                "runs used": f"{request['runs_used']} of {request['runs']}",
                "expires": request["expires_at"][:10],
                "policy": verdict(finding_from_dict(f) for f in request["findings"]),
            }
            for name, request in self._own_requests().items()
        ]
        return pd.DataFrame(rows)

    def privacy(self) -> PrivacyCosts:
        """What the study asks of each hospital's privacy budget, and what is spent and left."""
        requests = self._own_requests()
        return privacy_costs({self.federation[n].title: r for n, r in requests.items()})

    def wait(self, timeout_s: float = 3600, every_s: float = 2) -> dict[str, str]:
        """Wait until every request is decided, or the time is over; the states."""
        end = time.monotonic() + timeout_s
        while True:
            states = self.states()
            if not WAITING & set(states.values()) or time.monotonic() >= end:
                return states
            time.sleep(every_s)

    def run(
        self,
        name: str,
        weights: Arrays,
        config: Mapping[str, Any],
        *,
        round_number: int,
        attempt: int = 1,
        while_running: Callable[[float], None] | None = None,
    ) -> RunUpdate:
        """One run at one site; the same round and attempt again gives the same update, free.

        A long run is asked for again and again, with one id, until it has ended.

        Args:
            name: The site.
            weights: The weights to start from.
            config: The job's arguments.
            round_number: Number of the round.
            attempt: 1 for the first try of a round.
            while_running: Called with the seconds that the run is under way, whenever the site
                was asked and it has not ended; what it raises ends the asking.

        Raises:
            RefusedError: The site refused, with the rule and what to do.
            ConnectionLostError: It did not answer; call again with the same numbers.
        """
        if name not in self._codes:
            raise FederationError(f"the job was not submitted to {name}")
        if not self._codes[name]:
            self.take_up(name, self.requests[name])
        site = self.federation[name]
        numbers: dict[str, Any] = {
            "uid": self._codes[name],
            "round": round_number,
            "attempt": attempt,
        }
        payload, arguments = pack(weights), canonical_json(dict(config)).decode()
        state = UNKNOWN
        while state in (UNKNOWN, RUNNING):
            asked_at = time.monotonic()
            if state == UNKNOWN:
                told, packed = site.call_for_arrays(
                    "code.call", payload, config=arguments, **numbers
                )
            else:
                told, packed = site.call_for_arrays("sitegate.outcome", **numbers)
            receipt = json.loads(told)
            state = receipt["state"]
            if state in (UNKNOWN, RUNNING) and while_running is not None:
                while_running(receipt["seconds"])
            if state == RUNNING:
                # A site that stops, or answers many, does not let a call wait.
                time.sleep(max(0.0, asked_at + LEAST_WAIT_S - time.monotonic()))
        try:
            arrays = unpack(packed)
        except MalformedArraysError as error:
            raise UntrustedError(
                f"the update of {name} cannot be read: {error}; tell the hospital"
            ) from error
        return RunUpdate(
            weights=_group(arrays, "weights/"),
            counts=_group(arrays, "counts/"),
            metrics=receipt["metrics"],
            examples=receipt["examples"],
            run=receipt["run"],
        )

    def _own_requests(self) -> dict[str, dict[str, Any]]:
        return ask_all(self.sites, self._own_request)

    def _own_request(self, name: str) -> dict[str, Any]:
        listed = json.loads(self.federation[name].call("sitegate.requests"))
        found: dict[str, Any] = next(r for r in listed if r["request"] == self.requests[name])
        return found

    def _repr_html_(self) -> str:
        found, failed = ask_each(self.sites, self._own_request)
        standings = [
            standing_of(self.federation[name].title, found.get(name), failed.get(name))
            for name in self.sites
        ]
        return standings_table(self.wanted.title, standings)


def _state(request: Mapping[str, Any]) -> str:
    """The state, in more words where one would not do; runs have a column of their own."""
    if request["stopped"]:
        return "stopped: the policy changed"
    partly = request["state"] == "partly approved"
    return str(request["state_in_words"] if partly else request["state"])


def check_at(site: Site, job: Job, wanted: Wanted) -> list[Finding]:
    """The findings that this hospital will see for this request."""
    dataset = site.dataset(wanted.dataset)
    terms = wanted.at(dataset.version, job.entry)
    return check_request(Ask(job.text, terms, _facts(dataset.card), site.requester), site.policy)


def _facts(card: Mapping[str, Any]) -> DatasetFacts:
    """What a card tells; the hospital knows more."""
    classes = card["counts"].get("train", {})
    return DatasetFacts(
        examples=_total(classes),
        classes=tuple(classes.values()),
        patients_known=bool(card.get("patients")),
        methods=tuple(card.get("deidentification", ())),
    )


def _group(arrays: Arrays, prefix: str) -> Arrays:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _total(counts: Mapping[str, int | None]) -> int | None:
    numbers = list(counts.values())
    return None if None in numbers else sum(n for n in numbers if n is not None)


def _row(finding: Finding) -> dict[str, Any]:
    words = {
        Severity.REFUSE: "refused",
        Severity.WARN: "warning",
        Severity.READ: "to read",
        Severity.PASS: "pass",
    }
    return {
        "rule": finding.rule,
        "verdict": words[finding.severity],
        "seen": finding.seen,
        "allowed": finding.allowed,
        "do": finding.do,
    }

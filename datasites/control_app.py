"""The site's side of the control socket: what the hospital's own tools and its page may ask.

A Unix socket in the state directory (mode 0700): only the site's own user reaches it. That user
reads, has requests rehearsed, publishes what lies in the store and has the log signed. Whatever
decides, adopts a policy, changes accounts, countersigns or exports also needs a person of the
hospital, by password or by a session of the page, who is named in the log.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field

from datasites.adopted_policy import adopt_policy, adopted_policies
from datasites.audit_log import verify_log
from datasites.audit_search import find_events
from datasites.certificate import find_certificate
from datasites.control_door import Door, Identified
from datasites.control_people import add_people
from datasites.control_validation import refusal_sentence
from datasites.countersignature import countersign
from datasites.decisions import Shown, approve, checked_reason, deny, request_changes, revoke
from datasites.doctor import proof_in_words
from datasites.errors import DecisionError, SiteError
from datasites.evidence.export import export_evidence
from datasites.open_site import OpenSite, SyftSide
from datasites.people import list_people
from datasites.published import published_versions
from datasites.publishing import publish_all
from datasites.rehearsal import rehearse
from datasites.request_states import Verb
from datasites.requests import find_requests, get_request
from datasites.review import review, summarise
from datasites.signed_decisions import LineComment
from policies.explain import explain

MAXIMUM_EVENTS = 2000


class Decision(Identified):
    """A person's decision about a request."""

    reason: str = Field(max_length=10_000)
    """Why; the researcher reads it."""
    comments: tuple[LineComment, ...] = Field(default=(), max_length=1000)
    """Remarks on lines, when changes are requested."""
    policy_sha256: str = Field(default="", max_length=64)
    """The policy that the sheet was judged under; an approval needs it."""
    rehearsal_sha256: str = Field(default="", max_length=64)
    """The rehearsal that the sheet showed; an approval needs it."""


class NewPolicy(Identified):
    """A policy to adopt."""

    text: str = Field(max_length=200_000)
    """The YAML document."""
    reason: str = Field(max_length=1000)
    """Why it changes."""


class ToCountersign(Identified):
    """Another site's checkpoint."""

    checkpoint: dict[str, Any]
    """The signed document."""
    public_key: str = Field(max_length=200)
    """The other site's public key, hex."""


def control_app(site: OpenSite, syft: SyftSide) -> FastAPI:
    """The application behind the socket."""
    app = FastAPI(title="sitegate control", docs_url=None, redoc_url=None, openapi_url=None)
    door = Door(site)

    @app.exception_handler(SiteError)
    async def refuse(_request: Request, error: SiteError) -> JSONResponse:
        return JSONResponse({"error": str(error), "exit_code": error.exit_code}, status_code=409)

    @app.exception_handler(RequestValidationError)
    async def refuse_form(_request: Request, error: RequestValidationError) -> JSONResponse:
        told = SiteError(refusal_sentence(error))
        return JSONResponse({"error": str(told), "exit_code": told.exit_code}, status_code=409)

    _add_reading(app, site)
    add_people(app, site, syft, door)
    _add_records(app, site, door)
    _add_requests(app, site, syft, door)

    @app.post("/datasets")
    def publish() -> list[str]:
        return publish_all(site, syft)

    return app


def _add_reading(app: FastAPI, site: OpenSite) -> None:
    @app.get("/status")
    def status() -> dict[str, Any]:
        return {
            "name": site.config.name,
            "title": site.config.title,
            "url": site.site.url,
            "policy": site.policy.title,
            "policy_sha256": site.policy.sha256,
            "sandbox": site.sandbox_in_words,
            "sandbox_proof": proof_in_words(site.proof),
            "public_key": site.key.public_hex,
        }

    @app.get("/requests")
    def requests() -> list[dict[str, Any]]:
        return [summarise(site, row, listed=True).as_dict() for row in find_requests(site)]

    @app.get("/requests/{number}")
    def request(number: int) -> dict[str, Any]:
        return review(site, number).as_dict()

    @app.get("/policy")
    def policy() -> dict[str, Any]:
        history = adopted_policies(site.records)
        return {
            "title": site.policy.title,
            "sha256": site.policy.sha256,
            "text": history[0].text if history else "",
            "sections": [
                {"heading": s.heading, "sentences": list(s.sentences)} for s in explain(site.policy)
            ],
            "history": [
                {
                    "sha256": row.sha256,
                    "adopted_at": row.adopted_at,
                    "adopted_by": row.adopted_by,
                    "reason": row.reason,
                }
                for row in history
            ],
        }

    @app.get("/people")
    def people() -> list[dict[str, str]]:
        return [
            {"email": p.email, "name": p.name, "role": p.role, "since": p.created_at}
            for p in list_people(site.records)
        ]

    @app.get("/datasets")
    def datasets() -> list[dict[str, Any]]:
        store, key = site.site.datasets, site.key.public_hex
        found = [(v, find_certificate(store, v.row.version, key)) for v in published_versions(site)]
        return [
            {
                "name": version.row.name,
                "version": version.row.version,
                "published_at": version.row.published_at,
                "retired": version.retired,
                "card": version.card.model_dump(mode="json"),
                "certificate": certificate and certificate.model_dump(mode="json"),
            }
            for version, certificate in found
        ]

    @app.get("/audit")
    def audit(
        subject: str = "", event: str = "", actor: str = "", text: str = "", last: int = 200
    ) -> dict[str, Any]:
        log = site.site.audit
        found = verify_log(log, site.key.public_hex)
        events = list(find_events(log, subject=subject, event=event, actor=actor, text=text))
        is_being_written = found.unfinished_bytes > 0  # a last line that is half on the disk yet
        return {
            "lines": found.lines,
            "intact": found.intact or is_being_written,
            "bad_line": None if is_being_written else found.bad_line,
            "problem": "" if is_being_written else found.problem,
            "checkpoints": found.checkpoints,
            "unsigned_lines": found.unsigned_lines,
            "matching": len(events),
            "events": events[-min(max(last, 1), MAXIMUM_EVENTS) :],
        }


def _add_requests(app: FastAPI, site: OpenSite, syft: SyftSide, door: Door) -> None:
    @app.post("/requests/{number}/rehearsal")
    def rehearsal(request: Request, number: int) -> dict[str, Any]:
        by_session = "x-session" in request.headers
        acting = door.session(request, "rehearse", f"R-{number}").acting if by_session else None
        if acting and not acting.role.decides:
            raise DecisionError(
                f"{acting.email} is {acting.role}, which decides nothing; who decides rehearses"
            )
        rehearse(site, get_request(site, number), acting)
        return review(site, number).as_dict()

    @app.post("/requests/{number}/{verb}")
    def decide(request: Request, number: int, verb: str, said: Decision) -> dict[str, Any]:
        if verb not in set(Verb):
            raise DecisionError(f"`{verb}` is not a decision; use {', '.join(Verb)}")
        acting = door.decider(request, said, verb, f"R-{number}")
        reason = checked_reason(said.reason)
        with door.turn(acting), door.watched(acting, verb, f"R-{number}"):
            if verb == Verb.APPROVE:
                shown = Shown(said.policy_sha256, said.rehearsal_sha256)
                approve(site, syft, number, acting, reason, shown)
            elif verb == Verb.DENY:
                deny(site, syft, number, acting, reason)
            elif verb == Verb.REVOKE:
                revoke(site, syft, number, acting, reason)
            else:
                request_changes(site, number, acting, reason, said.comments)
        return review(site, number).as_dict()


def _add_records(app: FastAPI, site: OpenSite, door: Door) -> None:
    @app.post("/policy")
    def adopt(request: Request, said: NewPolicy) -> dict[str, str]:
        acting = door.owner(request, said, "adopt a policy", "policy")
        with door.turn(acting):
            policy, adoption = adopt_policy(
                site.site, site.records, site.audit, acting, said.text, said.reason
            )
            site.take_policy(policy, adoption)
        return {"title": policy.title, "sha256": policy.sha256}

    @app.post("/examination")
    def examination() -> list[dict[str, Any]]:
        return [asdict(check) for check in site.examine()]

    @app.post("/checkpoint")
    def checkpoint() -> dict[str, str]:
        site.audit.checkpoint()
        return {"signed_at": dt.datetime.now(dt.UTC).isoformat()}

    @app.post("/countersignatures")
    def countersign_other(request: Request, said: ToCountersign) -> dict[str, Any]:
        acting = door.let_in(request, said, "countersign a log", "audit log")
        return countersign(site, said.checkpoint, said.public_key, acting.email, acting.role)

    @app.post("/requests/{number}/evidence")
    def evidence(request: Request, number: int, said: Identified) -> dict[str, str]:
        acting = door.let_in(request, said, "export evidence", f"R-{number}")
        return export_evidence(site, number, acting)

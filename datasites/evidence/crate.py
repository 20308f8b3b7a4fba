"""`ro-crate-metadata.json`: the record as an RO-Crate 1.2, with the Five Safes as its spine.

It uses terms of the Five Safes RO-Crate profile: `CreateAction` for what ran, `AssessAction` with
the Safe Haven Provenance types for sign-off and disclosure check, `actionStatus` for outcomes. It
does not claim to conform to that profile: the folder is no BagIt bag, a job no Workflow Crate.

References:
    RO-Crate 1.2, https://w3id.org/ro/crate/1.2
    Five Safes RO-Crate profile 0.4, https://w3id.org/5s-crate/0.4
    Safe Haven Provenance ontology, https://w3id.org/shp
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from datasites.audit_events import Event
from datasites.evidence.claims import Line, of_kind
from datasites.evidence.documents import EXCERPT, JOB, POLICY, TERMS, json_file, sha256
from datasites.evidence.runs import RunEnd
from datasites.request_states import RequestState

SHP = "https://w3id.org/shp#"
_FORMATS = {
    "py": "text/x-python", "json": "application/json", "jsonl": "application/jsonl",
    "yaml": "application/yaml", "html": "text/html", "pub": "text/plain",
}  # fmt: skip
_POTENTIAL, _ACTIVE, _COMPLETED, _FAILED = (
    f"http://schema.org/{word}ActionStatus"
    for word in ("Potential", "Active", "Completed", "Failed")
)
_AGREED = (Event.REQUEST_CONSENTED, Event.REQUEST_APPROVED, Event.APPROVAL_CONFIRMED)
_DISAGREED = (Event.REQUEST_DENIED, Event.REQUEST_REVOKED, Event.CHANGES_REQUESTED)
_UNDECIDED = {RequestState.PENDING, RequestState.PARTLY_APPROVED, RequestState.CHANGES_REQUESTED}
_ENDS = {
    RunEnd.RELEASED.value: _COMPLETED,
    RunEnd.UNKNOWN.value: _ACTIVE,
    RunEnd.NOT_STARTED.value: _FAILED,
}

Entity = dict[str, Any]


def make_crate(record: Mapping[str, Any], lines: Sequence[Line], files: Mapping[str, str]) -> str:
    """The metadata file of a folder.

    Args:
        record: What `make_record` made.
        lines: The lines that are shown.
        files: The files that the crate describes: name -> text.
    """
    crate = ROCrate(version="1.2")
    safes = [_safe(section) for section in record["sections"]]
    actions = [
        _request(record),
        *_signoffs(lines),
        *(_run(run) for run in record["runs"]),
        *(_disclosure(run) for run in record["runs"] if run["end"] in ("released", "refused")),
    ]
    root = crate.root_dataset
    root["name"] = f"Evidence for {record['request']} at {record['site']['title']}"
    root["description"] = (
        "What was asked for, approved, run, released and refused for one request, with the lines "
        "of the site's audit log that prove it. Ordered by the Five Safes."
    )
    root["datePublished"] = record["exported"]["at"]
    root["license"] = {"@id": "#conditions"}
    root["publisher"] = {"@id": "#site"}
    root["mainEntity"] = {"@id": JOB}
    root["mentions"] = [{"@id": entity["@id"]} for entity in (*safes, *actions)]
    for name, text in sorted(files.items()):
        crate.add_file(dest_path=name, properties=_file(name, text))
    for entity in (*safes, *actions, *_updates(record), *_context(record, lines)):
        crate.add(ContextEntity(crate, entity["@id"], properties=entity))
    return json_file(crate.metadata.generate())


def _file(name: str, text: str) -> Entity:
    return {
        "name": name,
        "encodingFormat": _FORMATS.get(name.rsplit(".", 1)[-1], "application/octet-stream"),
        "contentSize": str(len(text.encode())),
        "sha256": sha256(text),
    }


def _safe(section: Mapping[str, Any]) -> Entity:
    """One of the Five Safes: its sentences, each with the lines that prove it."""
    said = []
    for statement in section["statements"]:
        basis = "" if statement["basis"] == "log" else f"{statement['basis']}; "
        proof = f"lines {', '.join(map(str, statement['lines']))}" if statement["lines"] else ""
        said.append(f"{statement['text']} ({f'{basis}{proof}'.removesuffix('; ')})")
    return {
        "@id": f"#{section['name'].lower().replace(' ', '-')}",
        "@type": "CreativeWork",
        "name": section["name"],
        "description": section["question"],
        "text": said,
        "isBasedOn": {"@id": EXCERPT},
    }


def _request(record: Mapping[str, Any]) -> Entity:
    state = record["state"]["word"]
    status = _FAILED
    if state in _UNDECIDED:
        status = _POTENTIAL
    elif state == RequestState.APPROVED:
        status = _ACTIVE
    elif record["totals"]["updates_released"]:
        status = _COMPLETED
    return {
        "@id": "#request",
        "@type": "CreateAction",
        "name": f"{record['request']}: {record['title']} ({state})",
        "actionStatus": status,
        "agent": {"@id": _person(record["researcher"])},
        "instrument": {"@id": JOB},
        "object": [{"@id": TERMS}, {"@id": "#dataset"}],
        "result": [{"@id": update["@id"]} for update in _updates(record)],
    }


def _signoffs(lines: Sequence[Line]) -> list[Entity]:
    return [
        {
            "@id": f"#signoff-line-{line['n']}",
            "@type": "AssessAction",
            "additionalType": {"@id": f"{SHP}SignOff"},
            "name": f"Sign-off: {line['event']} (line {line['n']})",
            "description": line["reason"],
            "endTime": line["time"],
            "object": [{"@id": "./"}, {"@id": JOB}, {"@id": TERMS}],
            "instrument": {"@id": POLICY},
            "agent": {"@id": _person(line["actor"])},
            "actionStatus": _COMPLETED if line["event"] in _AGREED else _FAILED,
        }
        for line in of_kind(lines, *_AGREED, *_DISAGREED)
    ]


def _run(run: Mapping[str, Any]) -> Entity:
    entity = {
        "@id": f"#run-{run['run'].replace('/', '-')}",
        "@type": "CreateAction",
        "name": f"Run {run['run']}: {run['end']} ({_lines(run)})",
        "actionStatus": _ENDS.get(run["end"], _FAILED),
        "instrument": {"@id": JOB},
        "object": [{"@id": "#dataset"}],
        "startTime": run["started_at"],
        "endTime": run["ended_at"],
        "error": ", ".join(filter(None, [run["kind"], *run["rules"]])),
        "result": [{"@id": _update(run)}] if run["update_sha256"] else "",
    }
    return {name: value for name, value in entity.items() if value}


def _disclosure(run: Mapping[str, Any]) -> Entity:
    passed = run["end"] == RunEnd.RELEASED
    return {
        "@id": f"#disclosure-{run['run'].replace('/', '-')}",
        "@type": "AssessAction",
        "additionalType": {"@id": f"{SHP}DisclosureCheck"},
        "name": f"Rules on the update of run {run['run']}: {run['end']} ({_lines(run)})",
        "endTime": run["ended_at"],
        "object": [{"@id": "./"}, {"@id": f"#run-{run['run'].replace('/', '-')}"}],
        "instrument": {"@id": POLICY},
        "agent": {"@id": "#sitegate"},
        "actionStatus": _COMPLETED if passed else _FAILED,
    }


def _updates(record: Mapping[str, Any]) -> list[Entity]:
    """The updates that left; they are described here and lie elsewhere."""
    return [
        {
            "@id": _update(run),
            "@type": "DigitalDocument",
            "name": f"Update of run {run['run']}",
            "sha256": run["update_sha256"],
            "contentSize": str(run["bytes"]),
        }
        for run in record["runs"]
        if run["update_sha256"]
    ]


def _context(record: Mapping[str, Any], lines: Sequence[Line]) -> list[Entity]:
    site = {"@id": "#site"}
    people = {line["actor"]: line["role"] for line in of_kind(lines, *_AGREED, *_DISAGREED)}
    people[record["researcher"]] = "researcher"
    dataset = record["dataset"]
    return [
        {"@id": "#site", "@type": "Organization", "name": record["site"]["title"]},
        {
            "@id": "#sitegate",
            "@type": "SoftwareApplication",
            "name": record["made_with"],
            "provider": site,
        },
        {
            "@id": "#conditions",
            "@type": "CreativeWork",
            "name": "For whoever the hospital gave it to; nothing is licensed by it",
        },
        {
            "@id": "#dataset",
            "@type": "Dataset",
            "name": f"{dataset['name']} version {dataset['version']}",
            "description": "Images that stay in the hospital; they are not part of this crate.",
            "identifier": dataset["version"],
        },
        *(
            {
                "@id": _person(email),
                "@type": "Person",
                "name": email,
                "jobTitle": role,
                **({} if role == "researcher" else {"affiliation": site}),
            }
            for email, role in people.items()
        ),
    ]


def _person(email: str) -> str:
    return f"#person-{quote(email)}"


def _update(run: Mapping[str, Any]) -> str:
    return f"#update-{run['run'].replace('/', '-')}"


def _lines(run: Mapping[str, Any]) -> str:
    return f"lines {', '.join(map(str, run['lines']))}"

"""An approval allows one account to run one text under one policy until one moment."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import factories
from datasites.approvals import PURPOSE, Approval, Consent, check_approval, sign_approval
from datasites.keys import SiteKey
from policies.job_rules import job_sha256
from policies.strict import canonical_json

KEY = SiteKey(b"k" * 32)
OTHER = SiteKey(b"o" * 32)
TEXT = factories.DOUBLE_JOB
POLICY = factories.policy()
APPROVED = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
EXPIRES = APPROVED + dt.timedelta(days=30)
APPROVAL = Approval(
    site="st-marys",
    request=7,
    researcher="rita@uni.example",
    text_sha256=job_sha256(TEXT),
    terms=factories.terms(),
    policy_sha256=POLICY.sha256,
    policy_adoption=1,
    consents=(
        Consent(
            person="owner@st-marys.example",
            role="owner",
            reason="as agreed in the steering group",
            at=dt.datetime(2026, 11, 22, 9, 0, tzinfo=dt.UTC),
            signature="0" * 128,
        ),
    ),
    approved_at=APPROVED,
    expires_at=EXPIRES,
)
DOCUMENT, SIGNATURE = sign_approval(APPROVAL, KEY)


def check(document: str = DOCUMENT, signature: str = SIGNATURE, **changes: Any) -> Any:
    """The check of a valid call, changed where a test says so."""
    call: dict[str, Any] = {
        "public_hex": KEY.public_hex,
        "request": 7,
        "researcher": "rita@uni.example",
        "text": TEXT,
        "policy": POLICY,
        "adoption": 1,
        "now": APPROVED,
        **changes,
    }
    return check_approval(document, signature, **call)


def test_approval_allows_what_it_was_given_for() -> None:
    assert check() == (APPROVAL, [])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"request": 8},
            "approval.account: an approval for another request or account; allowed: the approved "
            "account. To do: submit a request of your own.",
        ),
        (
            {"researcher": "mallory@uni.example"},
            "approval.account: an approval for another request or account; allowed: the approved "
            "account. To do: submit a request of your own.",
        ),
        (
            {"researcher": "Rita@uni.example"},
            "approval.account: an approval for another request or account; allowed: the approved "
            "account. To do: submit a request of your own.",
        ),
        *(
            (
                {"text": text},
                "approval.text: a text that differs from the approved one; allowed: the text "
                f"sha256 {job_sha256(TEXT)[:12]}…. To do: submit the new text as a new request.",
            )
            for text in (TEXT + " ", TEXT.replace("2", "3"), TEXT.replace("\n", "\r\n"), "")
        ),
        (
            {"policy": factories.policy(version=2)},
            "approval.policy: the hospital's policy has changed since; allowed: the policy sha256 "
            f"{POLICY.sha256[:12]}…. To do: ask the hospital to confirm the approval, or submit "
            "again.",
        ),
        (
            {"policy": factories.policy(counts={"minimum": 4})},
            "approval.policy: the hospital's policy has changed since; allowed: the policy sha256 "
            f"{POLICY.sha256[:12]}…. To do: ask the hospital to confirm the approval, or submit "
            "again.",
        ),
        (
            {"now": EXPIRES},
            "approval.expired: the approval expired on 2026-12-23 12:00 UTC; allowed: runs before "
            "that. To do: submit again.",
        ),
    ],
)
def test_each_binding_is_checked(changes: dict[str, Any], sentence: str) -> None:
    approval, findings = check(**changes)
    assert approval == APPROVAL
    assert [finding.sentence for finding in findings] == [sentence]


def test_all_broken_bindings_are_told_at_once() -> None:
    _, findings = check(request=8, text="", policy=factories.policy(version=2), now=EXPIRES)
    assert [finding.rule for finding in findings] == [
        "approval.account", "approval.text", "approval.policy", "approval.expired",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("now", "rules"),
    [
        (EXPIRES - dt.timedelta(seconds=1), []),
        (EXPIRES - dt.timedelta(microseconds=1), []),
        (EXPIRES, ["approval.expired"]),
        (EXPIRES + dt.timedelta(seconds=1), ["approval.expired"]),
        # the same moments, told in another time zone
        (
            (EXPIRES - dt.timedelta(seconds=1)).astimezone(dt.timezone(dt.timedelta(hours=5))),
            [],
        ),
        (EXPIRES.astimezone(dt.timezone(dt.timedelta(hours=-5))), ["approval.expired"]),
    ],
)
def test_approval_expires_to_the_second(now: dt.datetime, rules: list[str]) -> None:
    assert [finding.rule for finding in check(now=now)[1]] == rules


def refused_as_not_signed(document: str, signature: str, **changes: Any) -> None:
    approval, findings = check(document, signature, **changes)
    assert approval is None
    assert [finding.sentence for finding in findings] == [
        "approval.signature: the stored approval is not as it was signed; allowed: an approval "
        "signed by this site. To do: the hospital has to look into it and approve again."
    ]


@given(st.integers(0, len(DOCUMENT) - 1), st.characters(exclude_categories=["Cs"]))
def test_edited_document_is_refused(position: int, character: str) -> None:
    edited = DOCUMENT[:position] + character + DOCUMENT[position + 1 :]
    if edited != DOCUMENT:
        refused_as_not_signed(edited, SIGNATURE)


@given(st.integers(0, 127), st.characters(exclude_categories=["Cs"]))
def test_edited_signature_is_refused(position: int, character: str) -> None:
    edited = SIGNATURE[:position] + character + SIGNATURE[position + 1 :]
    if edited.lower() != SIGNATURE:  # `A` is the same digit as `a`
        refused_as_not_signed(DOCUMENT, edited)


@given(st.integers(0, 511))
def test_signature_with_one_other_bit_is_refused(bit: int) -> None:
    raw = bytearray.fromhex(SIGNATURE)
    raw[bit // 8] ^= 1 << bit % 8
    refused_as_not_signed(DOCUMENT, raw.hex())


@pytest.mark.parametrize(
    ("document", "signature", "public_hex"),
    [
        (DOCUMENT, "", KEY.public_hex),
        (DOCUMENT, "zz", KEY.public_hex),
        (DOCUMENT, SIGNATURE[:-2], KEY.public_hex),
        (DOCUMENT, SIGNATURE + "00", KEY.public_hex),
        (DOCUMENT, SIGNATURE, OTHER.public_hex),
        (DOCUMENT, SIGNATURE, ""),
        (DOCUMENT, sign_approval(APPROVAL, OTHER)[1], KEY.public_hex),
        (DOCUMENT, KEY.sign("audit checkpoint", DOCUMENT.encode()), KEY.public_hex),
        (DOCUMENT + " ", SIGNATURE, KEY.public_hex),
        ("", SIGNATURE, KEY.public_hex),
        (json.dumps(json.loads(DOCUMENT)), SIGNATURE, KEY.public_hex),  # the same, other spaces
    ],
)
def test_document_that_this_site_did_not_sign_is_refused(
    document: str, signature: str, public_hex: str
) -> None:
    refused_as_not_signed(document, signature, public_hex=public_hex)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "sitegate invoice"},
        {"runs_left": 5},
        {"expires_at": None},
        {"terms": {}},
        {"text_sha256": "0"},
    ],
)
def test_signed_document_of_another_form_is_refused(change: dict[str, Any]) -> None:
    document = canonical_json({**json.loads(DOCUMENT), **change})
    approval, findings = check(document.decode(), KEY.sign(PURPOSE, document))
    assert approval is None
    assert [finding.sentence for finding in findings] == [
        "approval.signature: an approval of another version of this product; allowed: this "
        "version. To do: ask for a new approval."
    ]


def test_document_is_canonical_json_of_everything_approved() -> None:
    plain = json.loads(DOCUMENT)
    assert canonical_json(plain).decode() == DOCUMENT
    assert Approval.model_validate(plain) == APPROVAL
    assert sign_approval(APPROVAL, KEY) == (DOCUMENT, SIGNATURE)
    assert set(plain) == set(Approval.model_fields)


@pytest.mark.parametrize("field", [f for f in Approval.model_fields if f != "type"])
def test_nothing_of_an_approval_has_a_default(field: str) -> None:
    assert Approval.model_fields[field].is_required()

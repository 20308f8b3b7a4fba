"""What a request may ask of the privacy budget: both sides of each threshold."""

from __future__ import annotations

from typing import Any

import pytest

import factories
from policies.findings import Severity, refusals
from policies.privacy.accounting import epsilon
from policies.privacy.asked import PrivacyAsked
from policies.privacy.mechanisms import Mechanism, Spent
from policies.privacy.request_rule import check_budget, check_privacy
from policies.privacy.rule import PrivacyRule

RULE = PrivacyRule(mode="update_noise", maximum_epsilon=4.0, delta=1e-5)
TRAINER = PrivacyRule(mode="dp_sgd", maximum_epsilon=4.0, delta=1e-5)
WEIGHTS_ONLY = factories.contract(metrics=())


def refused(rule: PrivacyRule, **changes: Any) -> list[str]:
    terms = factories.terms(**{"contract": WEIGHTS_ONLY, **changes})
    return [finding.rule for finding in refusals(check_privacy(terms, rule))]


@pytest.mark.parametrize(
    ("rule", "changes", "rules"),
    [
        (RULE, {"privacy": PrivacyAsked(epsilon=4.0)}, []),
        (RULE, {"privacy": PrivacyAsked(epsilon=4.001)}, ["privacy.epsilon"]),
        (RULE, {}, ["privacy.epsilon"]),
        (RULE, {"privacy": PrivacyAsked(epsilon=1, steps=2)}, ["privacy.steps"]),
        (RULE, {"privacy": PrivacyAsked(epsilon=1, sampling_rate=0.5)}, ["privacy.steps"]),
        (RULE, {"privacy": PrivacyAsked(epsilon=1), "contract": factories.contract()},
            ["privacy.outputs"]),
        (TRAINER, {"privacy": PrivacyAsked(epsilon=4, sampling_rate=0.1, steps=100)}, []),
        (TRAINER, {"privacy": PrivacyAsked(epsilon=1), "contract": factories.contract()},
            ["privacy.outputs"]),
        (PrivacyRule(mode="none"), {"contract": factories.contract()}, []),
    ],
)  # fmt: skip
def test_request_is_refused_past_each_threshold(
    rule: PrivacyRule, changes: dict[str, Any], rules: list[str]
) -> None:
    assert refused(rule, **changes) == rules


def test_no_protection_is_something_to_read() -> None:
    (found,) = check_privacy(factories.terms(), PrivacyRule(mode="none"))
    assert (found.severity, found.rule) == (Severity.READ, "privacy.mode")


@pytest.mark.parametrize("runs", [1, 7, 40])
def test_all_runs_together_cost_what_was_asked_for(runs: int) -> None:
    asked = PrivacyAsked(epsilon=2.5, sampling_rate=0.2, steps=30)
    one = asked.mechanism(runs, TRAINER)
    assert 2.47 < epsilon(Spent({one: runs}), 1e-5) <= 2.5


def test_what_is_left_decides_with_the_runs_that_are_left() -> None:
    terms = factories.terms(contract=WEIGHTS_ONLY, runs=10, privacy=PrivacyAsked(epsilon=3))
    mechanism = PrivacyAsked(epsilon=3).mechanism(10, RULE)
    others = Spent([Mechanism(noise_multiplier=1.7)])
    assert [f.severity for f in check_budget(terms, RULE, Spent())] == [Severity.PASS]
    (finding,) = check_budget(terms, RULE, others)
    assert finding.severity is Severity.REFUSE
    assert "is left" in finding.allowed
    mine = Spent({mechanism: 10})
    assert [f.severity for f in check_budget(terms, RULE, mine, 10)] == [Severity.PASS]
    assert list(check_budget(terms, PrivacyRule(mode="none"), others)) == []


def test_terms_without_a_question_of_privacy_keep_their_form() -> None:
    assert "privacy" not in factories.terms().model_dump(mode="json")
    asked = factories.terms(privacy=PrivacyAsked(epsilon=1))
    assert asked.model_dump(mode="json")["privacy"]["epsilon"] == 1

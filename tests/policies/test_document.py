"""A policy says what it means or does not load, and the message names the field."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import factories
from policies.document import Policy, PolicyError, load_policy, parse_policy
from policies.privacy.rule import PrivacyRule

FOLDER = Path(__file__).parents[2] / "policies"
EXAMPLES = ["university-hospital", "community-hospital", "childrens-hospital"]
GONE = object()
CAPS = {"maximum_epsilon": 3, "delta": 1e-5}
PLAIN = factories.policy().model_dump(mode="json", exclude_none=True)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The valid document with one field changed, added or (`GONE`) removed."""
    plain = copy.deepcopy(PLAIN)
    *above, last = path.split(".")
    inner = plain
    for name in above:
        inner = inner[name]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return plain


def parse(plain: Any) -> Policy:
    return parse_policy(yaml.safe_dump(plain))


def refusal(text: str) -> str:
    with pytest.raises(PolicyError) as refused:
        parse_policy(text)
    return str(refused.value)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_policy_loads_and_names_itself(name: str) -> None:
    policy = load_policy(FOLDER / f"{name}.yaml")
    assert policy.name == name
    assert policy.privacy.mode == "none"
    assert policy.title == f"{name} v{policy.version}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_field_is_written_out_in_an_example(name: str) -> None:
    """Whoever copies an example sees everything that can be set; but for long lists and caps."""
    plain = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert set(plain) == set(Policy.model_fields)
    unwritten = {
        f"{section}.{field}"
        for section, model in ((s, f.annotation) for s, f in Policy.model_fields.items())
        if isinstance(model, type) and issubclass(model, BaseModel)
        for field in set(model.model_fields) - set(plain[section])
    }
    assert unwritten - {"review.four_eyes", "review.waiting_hours"} == {
        "job.forbidden_calls",
        *(f"privacy.{field}" for field in set(PrivacyRule.model_fields) - {"mode"}),
    }  # fmt: skip


def test_document_of_the_factories_is_valid() -> None:
    assert parse(PLAIN) == factories.policy()  # else the refusals below prove nothing


@pytest.mark.parametrize(
    "field",
    ["name", "version", "datasets", "access", "privacy", "privacy.mode"],
)
def test_missing_field_is_named(field: str) -> None:
    text = yaml.safe_dump(changed(field, GONE))
    assert refusal(text) == f"the policy is not valid: `{field}` is missing"


@pytest.mark.parametrize(
    "field", sorted(set(Policy.model_fields) - {"name", "version", "datasets", "access", "privacy"})
)
def test_field_with_a_safe_default_may_be_left_out(field: str) -> None:
    parse(changed(field, GONE) if field in PLAIN else PLAIN)


def test_privacy_mode_has_to_be_written_out() -> None:
    seen = refusal(yaml.safe_dump(changed("privacy", {})))
    assert seen == "the policy is not valid: `privacy.mode` is missing"


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("run", "`run` is not a field; did you mean `runs`?"),
        ("dataset", "`dataset` is not a field; did you mean `datasets`?"),
        ("runs.maximun", "`runs.maximun` is not a field; did you mean `maximum`?"),
        ("expiry.max_days", "`expiry.max_days` is not a field; did you mean `maximum_days`?"),
        ("job.import", "`job.import` is not a field; did you mean `imports`?"),
        (
            "update.maximum_change",
            "`update.maximum_change` is not a field; did you mean `maximum_change_norm`?",
        ),
        ("sandbox.memory", "`sandbox.memory` is not a field; did you mean `memory_mb`?"),
        ("privacy.mod", "`privacy.mod` is not a field; did you mean `mode`?"),
        ("review.apprvers", "`review.apprvers` is not a field; did you mean `approvers`?"),
        # near is only what stands in the same section
        ("runs.maximum_days", "`runs.maximum_days` is not a field; did you mean `maximum`?"),
        ("arguments.rate.hgih", "`arguments.rate.hgih` is not a field; did you mean `high`?"),
        # nothing is near: the section's fields
        ("runs.zzz", "`runs.zzz` is not a field; the fields here are `maximum`, `per_day`"),
    ],
)
def test_unknown_field_is_named_with_the_nearest_known_one(field: str, sentence: str) -> None:
    assert refusal(yaml.safe_dump(changed(field, 1))) == f"the policy is not valid: {sentence}"


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        # inside lists
        (
            "review.tiers",
            [{"name": "large", "when": {"runs_abov": 3}}],
            "`review.tiers.0.when.runs_abov` is not a field; did you mean `runs_above`?",
        ),
        (
            "review.tiers",
            [{"name": "large", "when": {"runs_above": 3}, "zzz": 1}],
            "`review.tiers.0.zzz` is not a field; the fields here are `approvers`, `roles`, "
            "`four_eyes`, `waiting_hours`, `name`, `when`",
        ),
        # a word the product does not know
        (
            "privacy.mode",
            "dp",
            "`privacy.mode`: Input should be 'none', 'update_noise' or 'dp_sgd' (seen: 'dp')",
        ),
        (
            "privacy.mode",
            None,
            "`privacy.mode`: Input should be 'none', 'update_noise' or 'dp_sgd' (seen: None)",
        ),
        (
            "access",
            ["arrays", "files"],
            "`access.1`: Input should be 'arrays' or 'trainer' (seen: 'files')",
        ),
        # nothing may be empty that opens or names something
        (
            "datasets",
            [],
            "`datasets`: Tuple should have at least 1 item after validation, not 0 (seen: [])",
        ),
        (
            "access",
            [],
            "`access`: Tuple should have at least 1 item after validation, not 0 (seen: [])",
        ),
        # wrong types
        (
            "version",
            "one",
            "`version`: Input should be a valid integer, unable to parse string as an integer "
            "(seen: 'one')",
        ),
        (
            "runs.maximum",
            2.5,
            "`runs.maximum`: Input should be a valid integer, got a number with a fractional part "
            "(seen: 2.5)",
        ),
        # names that could be mistaken for paths
        (
            "name",
            "../x",
            "`name`: String should match pattern '^[A-Za-z0-9_][A-Za-z0-9_.\\-]{0,119}$' "
            "(seen: '../x')",
        ),
    ],
)
def test_wrong_value_is_named_with_what_was_seen(field: str, value: Any, sentence: str) -> None:
    seen = refusal(yaml.safe_dump(changed(field, value)))
    assert seen == f"the policy is not valid: {sentence}"


def test_all_wrong_fields_are_told_at_once() -> None:
    plain = changed("runs.maximum", 0)
    del plain["access"], plain["name"]
    message = refusal(yaml.safe_dump(plain))
    for field in ("`name` is missing", "`access` is missing", "`runs.maximum`: "):
        assert field in message


def test_seen_value_is_cut_to_a_readable_length() -> None:
    message = refusal(yaml.safe_dump(changed("privacy.mode", "x" * 10_000)))
    assert len(message) < 200


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"versions": {"head-mr": ["00000000"]}},
            "`versions` names `head-mr`, which is not in `datasets`",
        ),
        (
            {"review": {"waiting_hours": 24}, "expiry": {"maximum_days": 9, "undecided_days": 1}},
            "`review` waits 24 hours and `expiry.undecided_days` ends a request after "
            "24 hours, so that nobody could approve it",
        ),
        (
            {"privacy": {"mode": "dp_sgd", "maximum_epsilon": 3}},
            "`privacy`: `dp_sgd` needs `maximum_epsilon` and `delta`",
        ),
        (
            {"privacy": {"mode": "update_noise", "delta": 1e-5}},
            "`privacy`: `update_noise` needs `maximum_epsilon` and `delta`",
        ),
        (
            {"privacy": {"mode": "update_noise", **CAPS, "examples": "counted"}},
            "`privacy`: a number of images that code counted may not leave beside noise",
        ),
        (
            {"privacy": {"mode": "none", "release_after_s": 60}},
            "`privacy`: `release_after_s` is for `mode: update_noise`",
        ),
        (
            {"privacy": {"mode": "dp_sgd", **CAPS}},
            "`privacy.mode: dp_sgd` needs `access: [trainer]`: where foreign code reads images, "
            "noise in the steps of training guarantees nothing",
        ),
        (
            {"privacy": {"mode": "none", "maximum_epsilon": 3}},
            "`privacy`: caps on epsilon and delta mean nothing with `mode: none`",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_refused(
    changes: dict[str, Any], sentence: str
) -> None:
    seen = refusal(yaml.safe_dump({**PLAIN, **changes}))
    assert seen.startswith(f"the policy is not valid: {sentence}")


@pytest.mark.parametrize(
    "changes",
    [
        {"versions": {"chest-xray": ["00000000"]}},
        {"review": {"waiting_hours": 23.9}, "expiry": {"maximum_days": 9, "undecided_days": 1}},
        {"privacy": {"mode": "dp_sgd", **CAPS}, "access": ["trainer"]},
        {"privacy": {"mode": "update_noise", **CAPS, "release_after_s": 60, "examples": "fixed"}},
    ],
)
def test_fields_that_agree_are_taken(changes: dict[str, Any]) -> None:
    parse({**PLAIN, **changes})


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("requesters.accounts", ["rita@uni.example", "*@uni.example"], ["*", "rita", "r*@uni.x"]),
        ("requesters.institutions", ["St Mary's", "Universität"], ["", "a\nb", "a\u202eb"]),
        ("versions.chest-xray", ["0" * 8, "f" * 64], ["0" * 7, "F" * 8, "0" * 65, "latest"]),
        ("publishing.options", ["113100", "113199"], ["113", "1131000", "basic"]),
    ],
)
def test_lists_hold_what_they_are_of(field: str, good: list[str], bad: list[str]) -> None:
    section, _, inner = field.partition(".")
    for value in good:
        parse({**PLAIN, section: {inner: [value]}})
    for value in bad:
        text = yaml.safe_dump({**PLAIN, section: {inner: [value]}})
        assert f"`{field}.0`: String should" in refusal(text)


@pytest.mark.parametrize(
    ("field", "below", "lowest", "highest", "above"),
    [
        ("version", 0, 1, 1_000_000, 1_000_001),
        ("runs.maximum", 0, 1, 10_000, 10_001),
        ("runs.per_day", 0, 1, 10_000, 10_001),
        ("expiry.maximum_days", 0, 1, 730, 731),
        ("expiry.undecided_days", 0, 1, 730, 731),
        ("job.maximum_lines", 9, 10, 5000, 5001),
        ("contract.maximum_arrays", -1, 0, 5000, 5001),
        ("contract.maximum_tables", -1, 0, 50, 51),
        ("contract.maximum_cells", 0, 1, 1_000_000, 1_000_001),
        ("contract.maximum_metrics", -1, 0, 20, 21),
        ("examples.minimum", 1, 2, 1_000_000, 1_000_001),
        ("examples.minimum_classes", 0, 1, 1000, 1001),
        ("examples.minimum_per_class", 0, 1, 1_000_000, 1_000_001),
        ("dominance.maximum_share", 0, 1e-9, 1, 1.001),
        ("counts.minimum", 1, 2, 1000, 1001),
        ("update.maximum_mb", 0, 1e-9, 2000, 2000.001),
        ("update.maximum_total_mb", 0, 1e-9, 1e6, 1.001e6),
        ("update.maximum_change_norm", 0, 1e-9, 1e9, 1.001e9),
        ("sandbox.memory_mb", 63, 64, 1_000_000, 1_000_001),
        ("sandbox.time_s", 0, 1, 86_400, 86_401),
        ("sandbox.processes", 0, 1, 4096, 4097),
        ("publishing.minimum_per_class", 0, 1, 1_000_000, 1_000_001),
        ("publishing.minimum_patients", 0, 1, 1_000_000, 1_000_001),
        ("review.approvers", 0, 1, 5, 6),
        ("review.waiting_hours", -1, 0, 720, 720.5),
        ("review.rehearsal.images", -1, 0, 64, 65),
        ("review.rehearsal.time_s", 0, 1, 3600, 3601),
    ],
)
def test_number_is_kept_within_its_range(
    field: str, below: float, lowest: float, highest: float, above: float
) -> None:
    for value in (lowest, highest):
        parse(changed(field, value))
    for value in (below, above, -1):
        assert f"`{field}`: Input should be " in refusal(yaml.safe_dump(changed(field, value)))


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize(
    "field",
    [
        "version", "runs.maximum", "expiry.maximum_days", "examples.minimum", "counts.minimum",
        "update.maximum_mb", "update.maximum_change_norm", "sandbox.memory_mb", "sandbox.time_s",
        "job.maximum_lines", "arguments.rate.low", "arguments.rate.high",
    ],
)  # fmt: skip
def test_number_that_is_not_finite_is_refused(field: str, number: str) -> None:
    text = yaml.safe_dump(changed(field, "NUMBER")).replace("NUMBER", number)
    assert f"`{field}" in refusal(text)


@pytest.mark.parametrize("bound", ["{value: .nan}", "{choices: [1, .inf]}", "{low: 0, high: .inf}"])
def test_bound_that_is_not_finite_is_refused(bound: str) -> None:
    text = yaml.safe_dump(changed("arguments.rate", "BOUND")).replace("BOUND", bound)
    assert "`arguments.rate" in refusal(text)


def test_argument_without_a_bound_is_refused_with_the_field() -> None:
    assert refusal(yaml.safe_dump(changed("arguments.rate", {}))) == (
        "the policy is not valid: `arguments.rate`: give exactly one of `value`, "
        "`low` with `high`, `choices` (seen: {})"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the policy is empty; a policy starts with `name:` and `version:`"),
        ("# only a comment\n", "the policy is empty; a policy starts with `name:` and `version:`"),
        ("- a list\n", "the policy is empty; a policy starts with `name:` and `version:`"),
        ("just words", "the policy is empty; a policy starts with `name:` and `version:`"),
        ("a: [1", "the policy is not YAML: while parsing a flow sequence"),
        ("a: b: c", "the policy is not YAML: mapping values are not allowed here"),
        ("a: \x00", "the policy is not YAML: unacceptable character #x0000: "),
        (
            "!!python/object/apply:os.system ['true']",
            "the policy is not YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
    ],
)
def test_text_that_is_not_a_mapping_is_refused_in_a_sentence(text: str, sentence: str) -> None:
    assert refusal(text).startswith(sentence)


def test_field_that_is_written_twice_is_refused() -> None:
    """A strict line at the top must not be undone, unseen, by another at the end."""
    text = yaml.safe_dump(PLAIN)
    with pytest.raises(PolicyError, match="runs"):
        parse_policy(text + "runs: {maximum: 10000}\n")


def test_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    with pytest.raises(PolicyError) as refused:
        load_policy(path)
    assert str(refused.value) == (f"the policy {path} cannot be read; nothing runs without one")


def test_file_that_is_not_utf8_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(PolicyError) as refused:
        load_policy(path)
    assert str(refused.value) == f"the policy {path} cannot be read; nothing runs without one"


def test_invalid_file_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("name: x\n")
    with pytest.raises(PolicyError, match="is not valid: `version` is missing") as refused:
        load_policy(path)
    assert str(refused.value).startswith(f"the policy {path} is not valid: ")


@given(st.permutations(list(PLAIN)))
def test_digest_does_not_depend_on_order_and_comments(order: list[str]) -> None:
    text = "# a comment\n" + yaml.safe_dump({key: PLAIN[key] for key in order}, sort_keys=False)
    assert parse_policy(text + "# the end\n").sha256 == factories.policy().sha256


def test_digest_does_not_depend_on_defaults_being_written_out() -> None:
    short = {key: value for key, value in PLAIN.items() if key != "job"}
    assert parse(short).sha256 == parse(PLAIN).sha256


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "other"),
        ("version", 2),
        ("datasets", ["chest-xray", "more"]),
        ("runs.maximum", 101),
        ("expiry.maximum_days", 91),
        ("arguments.rate.high", 1.5),
        ("job.imports", ["math"]),
        ("job.forbidden_calls", []),
        ("examples.minimum", 11),
        ("counts.minimum", 6),
        ("update.maximum_mb", 1.5),
        ("update.maximum_change_norm", 1000.5),
        ("sandbox.time_s", 21),
    ],
)
def test_digest_changes_with_every_value(field: str, value: Any) -> None:
    assert parse(changed(field, value)).sha256 != parse(PLAIN).sha256


def test_every_field_of_a_policy_is_described() -> None:
    schema = Policy.model_json_schema()
    parts = schema["$defs"]
    assert len(parts) == 18  # all of them are looked at

    def described(entry: dict[str, Any]) -> bool:
        # A part that is described by the same words as its model refers to them.
        part = parts.get(entry.get("$ref", "").removeprefix("#/$defs/"), {})
        return bool(entry.get("description") or part.get("description"))

    silent = [
        f"{name}.{field}"
        for name, model in {"Policy": schema, **parts}.items()
        for field, entry in model["properties"].items()
        if not described(entry)
    ]
    assert silent == []


def test_every_number_of_a_policy_has_a_range_and_every_list_an_end() -> None:
    schema = Policy.model_json_schema()
    open_ended = []
    for name, model in {"Policy": schema, **schema["$defs"]}.items():
        for field, entry in model.get("properties", {}).items():
            for kind in entry.get("anyOf", [entry]):
                ends = {
                    "integer": [{"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}],
                    "number": [{"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}],
                    "array": [{"maxItems"}],
                    "string": [{"maxLength", "pattern", "enum", "const"}],
                }.get(kind.get("type"), [])
                if not all(end & set(kind) for end in ends):
                    open_ended.append(f"{name}.{field}")
    bound = {"Bound.value", "Bound.low", "Bound.high"}  # any finite number may be allowed
    assert set(open_ended) == bound


def test_policy_is_frozen() -> None:
    policy = factories.policy()
    with pytest.raises(ValueError, match="frozen"):
        policy.runs.maximum = 10_000  # type: ignore[misc]

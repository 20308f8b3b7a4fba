"""A policy in plain sentences, in the order in which a privacy officer asks.

Every sentence is made from the values, and every value stands in a sentence: two policies that
differ are explained differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from policies.contract import Use
from policies.deidentification_methods import method_in_words
from policies.document import Policy
from policies.explain_review import who_decides
from policies.plain_words import counted, in_digits, in_percent, listed
from policies.privacy.rule import ROUNDED_TO, PrivacyRule
from policies.release_rule import ReleaseRule


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the sentences below it."""

    heading: str
    sentences: tuple[str, ...]


def explain(policy: Policy) -> list[Section]:
    """The whole policy in words."""
    chapters = {
        "What this policy is": _title,
        "Who may ask, and for what": _who,
        "What a job sees": _sees,
        "What the text of a job may contain": _text,
        "How often, how long, with which arguments": _often,
        "What may leave": _leaves,
        "Who decides": who_decides,
        "What one run may use up": _resources,
        "What images need before they are published": _publishing,
        "What is refused outright": _refused,
        "What this policy does not protect against": _risks,
    }
    return [Section(heading, tuple(say(policy))) for heading, say in chapters.items()]


def _title(policy: Policy) -> Iterator[str]:
    yield f"Policy {policy.name}, version {policy.version:,}."
    if policy.about:
        yield f"In the hospital's own words: {policy.about.rstrip('.')}."


def _who(policy: Policy) -> Iterator[str]:
    accounts, institutions = policy.requesters.accounts, policy.requesters.institutions
    if accounts:
        yield f"Only these may ask: {listed(_account(account) for account in accounts)}."
    else:
        yield "Every account that the hospital made may ask."
    if institutions:
        yield f"The account has to stand for {listed(institutions, 'or')}."
    else:
        yield "It does not matter which institution the account stands for."
    yield f"The results may be used for {listed(policy.purposes)}."
    datasets = "dataset" if len(policy.datasets) == 1 else "datasets"
    yield f"Requests may be about the {datasets} {listed(policy.datasets)}."
    for name in policy.datasets:
        if starts := policy.versions.get(name):
            yield f"Of {name}, only versions that start with {listed(starts, 'or')} may be used."
        else:
            yield f"Of {name}, every version that the hospital publishes may be used."


def _account(account: str) -> str:
    return f"every account of {account[2:]}" if account.startswith("*@") else account


def _sees(policy: Policy) -> Iterator[str]:
    if "arrays" in policy.access:
        yield (
            "Approved code reads the de-identified images and labels of the approved dataset "
            "version itself, inside a sandbox without network, other files or secrets."
        )
    if "trainer" in policy.access:
        yield (
            "A job may describe a model that the hospital's own training loop trains with privacy "
            "mode dp_sgd, so that no foreign code sees an image."
        )
    if policy.access == ("trainer",) and policy.privacy.mode != "dp_sgd":
        yield "Nothing can be approved: the hospital's own training loop needs privacy mode dp_sgd."


def _text(policy: Policy) -> Iterator[str]:
    job = policy.job
    yield f"It has at most {counted(job.maximum_lines, 'line')}, so that a person can read it."
    yield f"It may import {listed(job.imports)}, and nothing else."
    if job.forbidden_calls:
        yield f"It may not use {listed(job.forbidden_calls, 'or')}."
    else:
        yield "The policy forbids no name in it."


def _often(policy: Policy) -> Iterator[str]:
    runs, expiry = policy.runs, policy.expiry
    yield (
        f"One approval pays for at most {counted(runs.maximum, 'run')}, and for at most "
        f"{in_digits(runs.per_day)} within 24 hours; failed runs count."
    )
    yield f"An approval ends after {counted(expiry.maximum_days, 'day')} at the latest."
    yield f"A request that nobody decided ends after {counted(expiry.undecided_days, 'day')}."
    if not policy.arguments:
        yield "A job may have no arguments."
    for name, bound in policy.arguments.items():
        yield f"The argument {name} may be {bound.in_words()}."


def _leaves(policy: Policy) -> Iterator[str]:
    form, update = policy.contract, policy.update
    yield "A request declares everything that leaves; what is not declared stays."
    yield (
        f"One run may return at most {counted(form.maximum_arrays, 'array')} of weights, "
        f"{counted(form.maximum_tables, 'table')} of counts with "
        f"{counted(form.maximum_cells, 'cell')} together, and "
        f"{counted(form.maximum_metrics, 'single number')}."
    )
    yield f"Numbers in arrays are of type {listed(form.dtypes, 'or')}."
    yield (
        f"That is at most {in_digits(update.maximum_mb)} MB per run and "
        f"{in_digits(update.maximum_total_mb)} MB over all runs of an approval."
    )
    yield (
        "Returned weights may differ from the weights that were sent by an L2 norm of at most "
        f"{in_digits(update.maximum_change_norm)}."
    )
    yield (f"A result rests on at least {counted(policy.examples.minimum, 'image')}, or it stays.")
    yield (
        f"The dataset has at least {counted(policy.examples.minimum_classes, 'class', 'classes')} "
        f"with at least {counted(policy.examples.minimum_per_class, 'training image')} each."
    )
    yield (
        f"At most {in_percent(policy.dominance.maximum_share)} of the training images come from "
        "one patient."
    )
    if policy.dominance.unknown_patients == "refuse":
        yield "Where nobody knows which image is whose, the request is refused."
    else:
        yield "Where nobody knows which image is whose, the person who decides is told."
    yield (
        f"A cell of a table is 0 or at least {in_digits(policy.counts.minimum)}: smaller groups "
        "are not shown."
    )
    yield from _noise(policy.privacy)
    yield from _release(policy.release)


def _noise(rule: PrivacyRule) -> Iterator[str]:
    norm = in_digits(rule.clip_norm)
    if rule.mode == "update_noise":
        yield (
            f"The change of a run is scaled down to an L2 norm of {norm}, and gets Gaussian noise; "
            "a run that fails gives noise alone."
        )
    if rule.mode == "dp_sgd":
        yield (
            f"In every step each patient's gradient, of at most "
            f"{counted(rule.images_per_patient, 'image')}, is scaled down to an L2 norm of {norm}, "
            "and their sum gets Gaussian noise."
        )
    yield {
        "counted": "The number of images that a run used leaves as it is.",
        "card": "The number of images that leaves is the one on the dataset's card.",
        "rounded": f"The number of images that leaves is rounded to {ROUNDED_TO}s.",
        "fixed": "The number of images does not leave: every site says 1.",
    }[rule.examples_shown]


def _release(rule: ReleaseRule) -> Iterator[str]:
    if rule.required:
        yield "A model is called released after a leakage test here that holds the limits."
    else:
        yield "No leakage test is demanded before a model is called released."
    for name, limit in (
        ("0.1", rule.maximum_tpr_at_0_1_percent), ("1", rule.maximum_tpr_at_1_percent),
    ):  # fmt: skip
        found = f"of the training images at a false positive rate of {name}%"
        if limit is None:
            yield f"In that test an attack may find any share {found}."
        else:
            yield f"In that test no attack may find more than {in_percent(limit)} {found}."
    if rule.maximum_parameters_per_patient is not None:
        most = in_digits(rule.maximum_parameters_per_patient)
        yield f"Such a model has at most {most} parameters per patient."


def _resources(policy: Policy) -> Iterator[str]:
    box = policy.sandbox
    yield (
        f"{in_digits(box.memory_mb)} MiB of memory, {counted(box.time_s, 'second')} and "
        f"{counted(box.processes, 'process or thread', 'processes and threads')}; then it is ended."
    )
    if box.proof_days:
        yield (
            "Nothing runs unless `sitegate doctor` has proved the sandbox within the last "
            f"{counted(box.proof_days, 'day')}."
        )
    else:
        yield "No proof is demanded that the sandbox holds on the hospital's machine."


def _publishing(policy: Policy) -> Iterator[str]:
    rule = policy.publishing
    yield (
        f"A dataset has at least {counted(rule.minimum_per_class, 'image')} of each class, of at "
        f"least {counted(rule.minimum_patients, 'patient')}."
    )
    if rule.options:
        methods = listed(method_in_words(code) for code in rule.options)
        yield f"Its certificate lists the de-identification methods {methods}."
    else:
        yield "No particular method of de-identification is demanded."
    yield {
        "required": "Pixels are searched for text; without the search nothing is published.",
        "if installed": "Pixels are searched for text where the program for it is installed.",
        "off": "Pixels are not searched for text.",
    }[rule.text_search]
    if rule.suspect_modalities:
        yield (
            f"Images of {listed(rule.suspect_modalities)} are left out unless they are marked as "
            "free of text in the pixels."
        )
    else:
        yield "No modality is suspected of text in the pixels."
    if rule.recognisable_heads == "refuse":
        yield "CT and MR images that may show a face are left out."
    else:
        yield "CT and MR images that may show a face are published; the card says so."


def _refused(policy: Policy) -> Iterator[str]:
    if others := [use for use in get_args(Use) if use not in policy.purposes]:
        yield f"Use for {listed(others, 'or')}."
    yield "A dataset, an argument, a module or a kind of result that is not named above."
    yield "A text, a dataset version or an argument that differs from what was approved."
    if policy.privacy.mode == "update_noise":
        yield "Metrics and tables that a job computes: noise that covers any number hides each."


def _risks(policy: Policy) -> Iterator[str]:
    if policy.privacy.mode == "none":
        yield (
            "Updates leave as they were computed (privacy mode none). A skilled reader of many "
            "updates can sometimes tell whether a patient's image was used, or rebuild parts of "
            "one. The limits above make that harder; they do not make it impossible."
        )
    else:
        yield policy.privacy.guarantee()
        yield (
            "Within that epsilon something may be learned about anyone; it is not zero. What is "
            "known of the dataset as a whole, such as the numbers on its card, is not covered."
        )
    yield (
        "What rules find in a text is advice. A text that hides its purpose well can pass them, "
        "so that approving rests on a person who reads it."
    )
    yield "What left before an approval is revoked cannot be taken back."
    if policy.dominance.unknown_patients == "read":
        yield "Datasets whose patients nobody knows are not protected against a dominating patient."
    if policy.publishing.text_search != "required":
        yield "Names in the pixels of an image may be published unseen."
    if policy.publishing.recognisable_heads == "allow":
        yield "Patients may be recognised by their faces."

"""The main job, end to end, as its three users would do it: see `scripts/demo --help`.

The hospitals are real sites in processes of their own; the researcher's part is written with
`federation` alone. Where a hospital's people decide, this program plays them through the same
control socket that `sitegate request approve` uses, and says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

import federation
from datasites.errors import SiteError
from datasites.imaging.problems import UnreadableSourceError
from datasites.imaging.sources.medmnist import read_medmnist
from datasites.imaging.text_search import find_tesseract
from demonstration_hospitals import (
    BINS,
    CLASSES,
    DATASET,
    GROUP,
    JOBS,
    MINIMUM_COUNT,
    ROOT,
    Demonstration,
    make_hospitals,
    prove_cages,
    publish_arrays_of,
    publish_phantoms,
    runs_asked,
    start_hospitals,
    training_arrays,
)
from demonstration_notebooks import write_for_notebooks
from demonstration_results import in_order, measure_on, model_title, summarise, write_results
from federation.evaluation import Evaluation
from federation.job import LocalData
from federation.subgroups import Subgroups
from federation.submission import Federation, Study
from federation.terms import Wanted
from policies.arrays import Arrays

out = Console(highlight=False)
FIRST = "notebooks/01_meet_the_sites.ipynb"


def main(
    data: Annotated[
        Path | None, typer.Option(help="MedMNIST-layout .npz; without it, phantoms are drawn.")
    ] = None,
    test_data: Annotated[
        Path | None, typer.Option(help="Also measure the model on this file's test split.")
    ] = None,
    sites: Annotated[int, typer.Option(min=2, max=8, help="How many hospitals.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How many federated rounds.")] = 10,
    seed: Annotated[int, typer.Option(min=0, max=1_000_000, help="Same seed, same weights.")] = 0,
    images: Annotated[
        int, typer.Option(min=400, max=50_000, help="How many phantoms are drawn.")
    ] = 1680,
    out_dir: Annotated[Path, typer.Option("--out", help="Where results go.")] = Path("out"),
    keep: Annotated[
        bool, typer.Option(help="Leave the sites up, with a request for you to decide.")
    ] = False,
) -> None:
    """Three hospitals, a researcher, ten federated rounds, and the evidence.

    Everything is real: each hospital is a PySyft datasite in a process of its own behind TLS, its
    policy is enforced, approved code runs in a sandbox, and every step is in the hospital's
    audit log. Only the people are played: the program decides as the hospitals' owners.
    """
    warnings.filterwarnings("ignore")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell ignores it
    try:
        tested = read_medmnist(test_data) if test_data else None
        demonstration = Demonstration(data, sites, rounds, seed, out_dir.resolve(), images=images)
        demonstration.out.mkdir(parents=True, exist_ok=True)
        _run(demonstration, tested, test_data, keep)
    except KeyboardInterrupt:
        out.print("\nStopped. No site is left running.")
        raise typer.Exit(130) from None
    except OSError as error:
        out.print(f"\n{error.filename}: {error.strerror}", style="red", markup=False)
        raise typer.Exit(1) from error
    except (SiteError, federation.FederationError, UnreadableSourceError, ValueError) as error:
        out.print(f"\n{error}", style="red", markup=False)
        raise typer.Exit(1) from error


def _run(demonstration: Demonstration, tested: Any, test_data: Path | None, keep: bool) -> None:
    started = time.monotonic()
    with _directory_for_sites(demonstration, keep) as directory:
        try:
            _publish(demonstration, directory)
            with _step(
                demonstration,
                2,
                f"Starting {demonstration.hospitals} datasites (own process, own keys, own policy, "
                "TLS on 127.0.0.1) …",
                "setup",
            ):
                sites = start_hospitals(demonstration)
                proved = list(prove_cages(demonstration))
            for site, checks in proved:
                title = f"       {site.site.config.title:<14}"
                told = f"{checks} of {checks} checks pass"
                out.print(f"{title} its policy asks for it: cage proved, {told}", markup=False)
            out.print("3/6  The researcher submits, the hospitals decide (played by this program)")
            clock = time.monotonic()
            train, follow, final, weights = _submit_all(demonstration, sites)
            demonstration.seconds["approval"] = time.monotonic() - clock

            out.print(f"4/6  Federated averaging, rounds: {demonstration.rounds}")
            clock = time.monotonic()
            config = {**train.job.call("defaults"), **demonstration.training}
            weights_by_round: list[Arrays] = []
            result = federation.run_rounds(
                train,
                weights,
                config,
                rounds=demonstration.rounds,
                after_round=lambda _, r: weights_by_round.append(r.weights),
            )
            demonstration.seconds["rounds"] = time.monotonic() - clock

            out.print("5/6  Evaluating inside each hospital (only counts of images leave)")
            models = {"federated": result.weights}
            models |= _train_alone(demonstration, train, weights, config)
            models["pooled"] = _train_pooled(demonstration, train, weights, config)
            measured = _measure(final, models)
            by_round = _follow(follow, weights_by_round)
            subgroups = _measure_groups(final, result.weights, first_round=len(models) + 1)
            _print_table(demonstration, measured)

            with _step(demonstration, 6, "Verifying the audit logs, writing the report …", ""):
                audit = _stop_and_verify(demonstration, keep)
            demonstration.seconds["total"] = time.monotonic() - started
            summary = summarise(demonstration, result, measured, audit)
            if tested is not None and test_data is not None:
                summary["test"] = measure_on(train, result.weights, tested["test"], test_data)
            write_results(
                demonstration, sites, train, result, measured, by_round, subgroups, summary
            )
            _print_end(demonstration, summary)
            if keep:
                _leave_running(demonstration, sites, final)
        finally:
            for site in demonstration.sites:
                site.stop()


def _publish(demonstration: Demonstration, directory: Path) -> None:
    """Make the sites and publish their images; a line for each hospital."""
    clock = time.monotonic()
    if demonstration.data:
        doing = f"dividing {demonstration.data.name} among them, publishing"
    else:
        doing = "phantoms written as DICOM, de-identified, searched for text, published"
    out.print(f"1/6  {demonstration.hospitals} hospitals: {doing}", markup=False, soft_wrap=True)
    if not demonstration.data and not find_tesseract():
        out.print(
            "       Tesseract is not on this machine: pixels are not searched for text "
            "(apt install tesseract-ocr)",
            style="yellow",
        )
    make_hospitals(demonstration, directory)
    lines = (
        publish_arrays_of(demonstration, demonstration.data)
        if demonstration.data
        else publish_phantoms(demonstration, directory)
    )
    for line in lines:
        out.print(f"       {line}", markup=False, soft_wrap=True)
    demonstration.seconds["setup"] = time.monotonic() - clock


def _submit_all(
    demonstration: Demonstration, sites: Federation
) -> tuple[Study, Study, Study, Arrays]:
    """Submit the training job and two evaluations; have them decided."""
    job = federation.read_job(JOBS / "train_classifier.py")
    card = next(iter(sites)).dataset(DATASET).card
    weights: Arrays = job.call("initial_weights", card, {"seed": demonstration.seed})
    rounds = demonstration.rounds
    train = federation.Study(
        sites,
        job,
        federation.training_terms(
            weights,
            title="train a pneumonia classifier (FedAvg, small CNN)",
            purpose="Compare federated with local training",
            dataset=DATASET,
            runs=runs_asked(demonstration),
            config={
                **job.call("defaults"),
                **demonstration.training,
                "epochs": (1, max(2, rounds)),
                "round": (0, rounds),
            },
        ),
    )
    evaluate = federation.read_job(JOBS / "evaluate_classifier.py")
    follow = federation.Study(
        sites, evaluate, _evaluation(weights, "follow the AUC round by round", rounds + 2)
    )
    groups = card.get("groups", {}).get(GROUP, ())
    runs = demonstration.hospitals + 3 + len(groups)
    final = federation.Study(
        sites,
        evaluate,
        _evaluation(weights, "evaluate the final models", runs, [GROUP] if groups else []),
    )
    for name in sites.names:
        _decide(demonstration, train, name, "train_classifier")
    for study, title in ((follow, "evaluate_classifier"), (final, "evaluate_classifier")):
        for name in sites.names:
            _decide(demonstration, study, name, title, quiet=True)
    out.print("       evaluate_classifier approved at every hospital, twice", markup=False)
    return train, follow, final, weights


def _evaluation(weights: Arrays, title: str, runs: int, by: Sequence[str] = ()) -> Wanted:
    return federation.evaluation_terms(
        weights,
        title=title,
        purpose="Measure models without moving images",
        dataset=DATASET,
        runs=runs,
        classes=len(CLASSES),
        bins=BINS,
        config={"split": "test", "minimum_count": MINIMUM_COUNT},
        by=by,
    )


def _decide(
    demonstration: Demonstration, study: Study, name: str, title: str, quiet: bool = False
) -> None:
    """Submit at one site and decide as its owner; once refused, submit again within the policy."""
    site = demonstration.site(name)
    number = study.submit(name)
    sheet = site.control.request(number)
    refused = [f for f in sheet["findings"] if f["severity"] == "refuse"]
    line = f"       {site.site.config.title:<14} "
    if refused:
        reason = "; ".join(f"{f['rule']}: {f['seen']}, {f['allowed']} allowed" for f in refused)
        site.decide(number, "deny", reason)
        told = study.status().set_index("site").loc[site.site.config.title, "reason"]
        demonstration.decisions.append(
            {"site": name, "job": title, "decision": "denied", "reason": str(told)}
        )
        allowed = study.federation[name].policy.runs.maximum
        out.print(f"{line}DENIED  {told}", markup=False, soft_wrap=True)
        demonstration.refusals.append(
            {
                "site": site.site.config.title,
                "rule": refused[0]["rule"],
                "sentence": f"{told}. Resubmitted with {allowed} runs and approved.",
            }
        )
        number = study.submit(name, runs=allowed)
        line += f"resubmitted with {allowed} runs → "
    sheet = site.control.request(number)
    severities = Counter(f["severity"] for f in sheet["findings"])
    read = f", {severities['read']} to read" if severities["read"] else ""
    reason = "within our policy, and the text is what the title says"
    site.decide(number, "approve", reason)
    demonstration.decisions.append(
        {"site": name, "job": title, "decision": "approved", "reason": reason}
    )
    if not quiet:
        said = f"approved by its data owner ({severities['pass']} rules pass{read})"
        out.print(line + said, markup=False, soft_wrap=True)


def _train_alone(
    demonstration: Demonstration, train: Study, weights: Arrays, config: dict[str, Any]
) -> dict[str, Arrays]:
    """Each hospital alone: as many epochs as rounds, in one run under the same approval."""
    alone = {**config, "epochs": demonstration.rounds}
    return {
        name: train.run(name, weights, alone, round_number=demonstration.rounds + 1).weights
        for name in train.sites
    }


def _train_pooled(
    demonstration: Demonstration, train: Study, weights: Arrays, config: dict[str, Any]
) -> Arrays:
    """All images in one place, by the same job text: possible only because this is a demo."""
    images, labels = training_arrays(demonstration)
    card = train.federation[train.sites[0]].dataset(DATASET).card
    data = LocalData({"images": images, "labels": labels}, card)
    pooled = {**config, "epochs": demonstration.rounds}
    result: Arrays = train.job.call(train.job.entry, data, weights, pooled)["weights"]
    return result


def _measure(final: Study, models: dict[str, Arrays]) -> dict[str, Evaluation]:
    config = {"split": "test", "minimum_count": MINIMUM_COUNT, "bins": BINS}
    return {
        name: federation.evaluate(final, weights, config, round_number=k)
        for k, (name, weights) in enumerate(models.items(), start=1)
    }


def _measure_groups(final: Study, weights: Arrays, first_round: int) -> Subgroups | None:
    """The shared model by subgroup, where the hospitals were asked for it."""
    if "by" not in final.wanted.arguments:
        return None
    config = {"split": "test", "minimum_count": MINIMUM_COUNT, "bins": BINS}
    return federation.evaluate_groups(final, weights, config, by=GROUP, first_round=first_round)


def _follow(follow: Study, weights_by_round: list[Arrays]) -> pd.DataFrame:
    config = {"split": "test", "minimum_count": MINIMUM_COUNT, "bins": BINS}
    rows = {}
    for number, weights in enumerate(weights_by_round, start=1):
        measured = federation.evaluate(follow, weights, config, round_number=number)
        rows[number] = measured.frame()["auc"]
    return pd.DataFrame(rows).T.rename_axis("round")


def _print_table(demonstration: Demonstration, measured: dict[str, Evaluation]) -> None:
    table = Table(box=None, pad_edge=False, title="AUC", title_justify="left")
    table.add_column("model")
    for site in demonstration.sites:
        table.add_column(f"at {site.site.config.title}", justify="right")
    table.add_column("over all", justify="right", style="bold")
    for model in in_order(measured):
        row = measured[model]
        cells = [f"{row.sites[s.name].auc.value:.3f}" for s in demonstration.sites]
        table.add_row(model_title(demonstration, model), *cells, f"{row.overall.auc.value:.3f}")
    out.print(table)


def _stop_and_verify(demonstration: Demonstration, keep: bool) -> dict[str, dict[str, Any]]:
    """Stop the sites, or have them sign their logs; verify each log and copy it out."""
    audit = {}
    for site in demonstration.sites:
        if keep:
            site.control.checkpoint()
        else:
            site.stop()
        found = site.verify_audit()
        shutil.copyfile(site.site.audit, demonstration.out / f"{site.name}-audit.jsonl")
        (demonstration.out / f"{site.name}.pub").write_text(site.public_key + "\n")
        audit[site.name] = {"lines": found.lines, "verified": found.intact}
    return audit


def _print_end(demonstration: Demonstration, summary: dict[str, Any]) -> None:
    lines = sum(found["lines"] for found in summary["audit"].values())
    intact = all(found["verified"] for found in summary["audit"].values())
    said = "chains intact, signatures valid" if intact else "NOT INTACT"
    out.print(f"       Audit: {len(summary['audit'])} logs, {lines} lines, {said}")
    if "test" in summary:
        test = summary["test"]
        out.print(
            f"       On the test split of {test['data']}: AUC {test['auc']:.3f}, "
            f"accuracy {test['accuracy']:.3f} ({test['images']} images)",
            soft_wrap=True,
        )
    shown = os.path.relpath(demonstration.out)
    out.print(f"       {summary['seconds']['total']:.0f} s in all. Look: {shown}/report.html")


def _leave_running(demonstration: Demonstration, sites: Federation, final: Study) -> None:
    """Leave a request to decide and the files of the notebooks, and wait for Ctrl-C."""
    site = demonstration.sites[0]
    again = federation.Study(sites, final.job, final.wanted)
    number = again.submit(site.name)
    folder = site.site.path.parent
    write_for_notebooks(folder, demonstration.sites, demonstration.password)
    shown = os.path.relpath(site.site.path)
    usual = folder == ROOT / "out" / "sites"
    jupyter, first = (os.path.relpath(ROOT / n) for n in (".venv/bin/jupyter", FIRST))
    elsewhere = "" if usual else "; say so in their first cells, which expect out/sites"
    out.print(
        "\nThe sites stay up until you press Ctrl-C here. In another terminal, in this folder:\n"
        f"  {jupyter} lab {first}\n"
        "    01 to 05 are a researcher's notebooks, 11 and 12 a data owner's, 21 and 22 for "
        "compliance.\n"
        "    03 waits until 12 has been run in another tab: there you decide as the hospitals.\n"
        f"    They find addresses and passwords in {os.path.relpath(folder)}, which only you can "
        f"read{elsewhere}.\n"
        f"\nOr in the terminal: {site.site.config.title} has a new request, R-{number}.\n"
        f"  export SITEGATE_SITE={shown} SITEGATE_PERSON={site.owner}\n"
        "  .venv/bin/sitegate request list\n"
        f"  .venv/bin/sitegate request show R-{number}\n"
        f'  .venv/bin/sitegate request approve R-{number} --reason "…"\n'
        f"    (it asks for the password of {site.owner}: {site.owner_password})\n"
        f"  .venv/bin/sitegate audit show --subject R-{number}\n"
        "  .venv/bin/sitegate audit verify",
        markup=False,
        soft_wrap=True,
    )
    signal.pause()


@contextmanager
def _step(demonstration: Demonstration, number: int, text: str, key: str) -> Iterator[None]:
    out.print(f"{number}/6  {text}", end="", markup=False, soft_wrap=True)
    clock = time.monotonic()
    try:
        yield
    except BaseException:
        out.print()
        raise
    took = time.monotonic() - clock
    out.print(f"  {took:.0f} s")
    if key:
        demonstration.seconds[key] = demonstration.seconds.get(key, 0.0) + took


@contextmanager
def _directory_for_sites(demonstration: Demonstration, keep: bool) -> Iterator[Path]:
    """Where the sites live: below --out with --keep, else a directory that is removed."""
    if keep:
        directory = demonstration.out / "sites"
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir()
        yield directory
        return
    directory = Path(tempfile.mkdtemp(prefix="sitegate-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
app.command()(main)

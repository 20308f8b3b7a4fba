"""The site's side of private training: a model from one cage, trained in another.

text + card -> cage without data -> hostile bytes -> checked graph -> cage with data -> parameters

Foreign code runs in the first cage only, which has the card and no image. The second one has the
images and no foreign code: what goes into it is a graph, a plan and arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasites.files import write_private
from datasites.sandbox.bubblewrap import Bubblewrap
from datasites.sandbox.cage import Cage, RunResult, RunText
from policies.arrays import Arrays, pack
from policies.contract import ArrayContract, Contract
from policies.findings import Finding, refuse
from policies.model_graph import MAXIMUM_BYTES, ModelGraph, read_graph
from policies.privacy.plan import ScorePlan, TrainingPlan, scored_classes
from policies.sections import SandboxRule

EXPORTER = Path(__file__).with_name("exporter.py")
ROOT = Path(__file__).resolve().parents[2]
FILES = (
    "datasites/sandbox/trainer.py",  # is started
    "datasites/__init__.py",
    "datasites/sandbox/__init__.py",
    "datasites/sandbox/patient_optimizer.py",
    "datasites/sandbox/patient_samples.py",
    "datasites/sandbox/private_runs.py",
    "datasites/sandbox/rebuilding.py",
    "datasites/sandbox/worker.py",
    "policies/__init__.py",
    "policies/arrays.py",
    "policies/findings.py",
    "policies/model_graph.py",
    "policies/model_layers.py",
    "policies/privacy/__init__.py",
    "policies/privacy/mechanisms.py",
    "policies/privacy/noise.py",
    "policies/privacy/plan.py",
    "policies/strict.py",
)
TRAINER = {f"/program/{name}": ROOT / name for name in FILES}
"""The program of a cage with data and without foreign code: name inside -> file."""


class ModelRefused(Exception):
    """A text's model cannot be trained privately; the findings may be told to the researcher."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(finding.sentence for finding in findings))
        self.findings = list(findings)


def card_folder(folder: Path, version: Path) -> Path:
    """Make the directory of a cage without data: a copy of the version's card, and nothing else.

    Args:
        folder: Where; it may be there already.
        version: Directory of the dataset version.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folder / "card.json", (version / "card.json").read_bytes())
    return folder


def trainer_cage(
    version: Path, bwrap: Bubblewrap | None, threads: int, idle_s: float | None = None
) -> Cage:
    """A cage with a dataset version in which the hospital's own trainer runs."""
    return Cage(version, bwrap, threads, idle_s, TRAINER)


def export_model(
    cage: Cage, text: str, entry: str, config: dict[str, Any], limits: SandboxRule
) -> ModelGraph:
    """The graph of the model that a text builds, in a cage without data.

    Args:
        cage: A cage on what `card_folder` made.
        text: The job's text, with an entry function `build(card, config)`.
        entry: Its name.
        config: The job's arguments.
        limits: What the text may take.

    Raises:
        ModelRefused: The model is not one that may be trained.
        RunFailed: The text raised, or took too much.
        SandboxError: The cage cannot be started.
    """
    arguments = {"text": text, "entry": entry, "config": config}
    room = ArrayContract(shape=(MAXIMUM_BYTES,), dtype="float16")  # for bytes, and some more
    exporting = RunText(EXPORTER.read_text(), "export_model", arguments, pack({}))
    update = cage.run(exporting, Contract(weights={"graph": room}), limits).update
    written = update.weights.get("graph")
    if written is None or written.dtype.name != "uint8" or written.ndim != 1:
        nothing = refuse(
            "model.form", "no graph", "a graph of layers and calls", "look at the text"
        )
        raise ModelRefused([nothing])
    graph = read_graph(written.tobytes())
    if not isinstance(graph, ModelGraph):
        raise ModelRefused(graph)
    return graph


def train_privately(
    cage: Cage, graph: ModelGraph, weights: Arrays, plan: TrainingPlan, limits: SandboxRule
) -> RunResult:
    """Train a model on the `train` split; parameters leave, no metrics, and `plan.examples`.

    Args:
        cage: What `trainer_cage` made.
        graph: The model, as `export_model` gave it and `check_graph` found nothing against.
        weights: Name -> array, the parameters to start from.
        plan: What is done.
        limits: What it may take.

    Raises:
        RunFailed: The graph does not fit the images, or the weights do not fit the graph, or the
            run took too much.
        SandboxError: The cage cannot be started.
    """
    contract = Contract(
        weights={
            name: ArrayContract(shape=shape, dtype="float32")
            for name, shape in graph.parameters().items()
        }
    )
    return cage.run(_run("train", graph, weights, plan), contract, limits)


def score_privately(
    cage: Cage,
    graph: ModelGraph,
    weights: Arrays,
    plan: ScorePlan,
    classes: int,
    limits: SandboxRule,
) -> RunResult:
    """Score a split; the table `scores` (tables, 2, bins) int64 leaves, and `plan.examples`.

    Args:
        cage: What `trainer_cage` made.
        graph: The model.
        weights: Name -> array, its parameters.
        plan: What is done.
        classes: Number of classes of the dataset version.
        limits: What it may take.

    Raises:
        RunFailed: As `train_privately`.
        SandboxError: The cage cannot be started.
    """
    table = ArrayContract(shape=(scored_classes(classes), 2, plan.bins), dtype="int64")
    return cage.run(_run("score", graph, weights, plan), Contract(counts={"scores": table}), limits)


def _run(entry: str, graph: ModelGraph, weights: Arrays, plan: TrainingPlan | ScorePlan) -> RunText:
    return RunText(graph.model_dump_json(), entry, plan.model_dump(mode="json"), pack(weights))

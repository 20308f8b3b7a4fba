"""MobileNetV2 on tissue of ten classes at three hospitals: see `scripts/tissue --help`."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import yaml
from rich.console import Console
from safetensors.numpy import save_file

import federation
from datasites.config import SiteConfig
from datasites.errors import SiteError
from datasites.imaging.tissue_phantoms import CLASSES, draw_tissue_phantoms
from datasites.new_site import example_policy
from datasites.people import generate_password
from datasites.trial import TrialSite, free_port, roster
from federation.submission import Federation

JOB = Path(__file__).resolve().parent.parent / "notebooks" / "jobs" / "train_classifier.py"
HOSPITALS = {"st-marys": 0.5, "north-clinic": 0.3, "seaside": 0.2}
"""Each hospital's share of the images."""
DATASET, RESEARCHER = "tissue", "researcher@uni.example"
out = Console(highlight=False)


def main(
    size: Annotated[int, typer.Option(min=32, max=224, help="Pixels of a side.")] = 224,
    images: Annotated[int, typer.Option(min=300, max=20_000, help="At all hospitals.")] = 900,
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Federated rounds.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, max=20, help="Local epochs of a round.")] = 1,
    batch_size: Annotated[int, typer.Option(min=8, max=256, help="Images of a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=1e-5, max=0.5, help="Of Adam.")] = 0.001,
    seed: Annotated[int, typer.Option(min=0, max=1_000_000, help="Same seed, same weights.")] = 0,
    out_dir: Annotated[Path, typer.Option("--out", help="Where the model goes.")] = Path("out"),
) -> None:
    """MobileNetV2 without pretrained weights, trained at three hospitals that keep their images.

    Colour images of ten classes are drawn and published at three real datasites; their owners
    (played by this program) approve the training job; each site trains with Adam, and the updates
    are averaged, weighted by images. At full size a round takes about a minute on two cores.
    """
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(prefix="sitegate-tissue-") as name:
        hospitals = [_hospital(Path(name), site) for site in HOSPITALS]
        try:
            clock = time.monotonic()
            out.print(f"Drawing {images} patches of {size} x {size} x 3, publishing …", end="")
            _publish(hospitals, images, size, seed)
            out.print(f" {time.monotonic() - clock:.0f} s\nStarting 3 datasites …", end="")
            clock = time.monotonic()
            sites = _start(hospitals)
            out.print(f" {time.monotonic() - clock:.0f} s")
            process = federation.build_weighted_fed_avg(
                federation.Model("mobilenet_v2", classes=len(CLASSES)),
                client_optimizer=federation.Adam(learning_rate),
                server_optimizer=federation.FedAvg(),
                job=federation.read_job(JOB),
                config={"batch_size": batch_size, "epochs": epochs, "seed": seed},
            )
            study = process.submit(
                sites,
                dataset=DATASET,
                rounds=rounds,
                title="classify tissue (FedAvg, MobileNetV2)",
                purpose="Train without moving a slide",
            )
            for hospital in hospitals:
                reason = "the model that we agreed on, and three numbers, leave"
                hospital.decide(study.requests[hospital.name], "approve", reason)
                out.print(f"  {hospital.site.config.title:<14} approved by its data owner")
            state = process.initialize()
            for _ in range(rounds):
                state, _ = process.next(state, study)
            out_dir.mkdir(parents=True, exist_ok=True)
            save_file(state.weights, out_dir / "tissue_model.safetensors")
            out.print(f"The model: {out_dir / 'tissue_model.safetensors'}", markup=False)
        except (SiteError, federation.FederationError, OSError) as error:
            out.print(f"\n{error}", style="red", markup=False)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            out.print("\nStopped. No site is left running.")
            raise typer.Exit(130) from None
        finally:
            for hospital in hospitals:
                hospital.stop()


def _hospital(folder: Path, name: str) -> TrialSite:
    """A hospital under the university's example policy, with room for a larger model."""
    plain = yaml.safe_load(example_policy("university-hospital").read_text())
    plain["datasets"] = [DATASET]
    plain["examples"]["minimum_per_class"] = 5
    plain["update"]["maximum_change_norm"] = 1000  # running variances move far from 1
    plain["sandbox"] |= {"memory_mb": 6144, "time_s": 3600}
    plain["review"] = {"rehearsal": {**plain["review"]["rehearsal"], "images": 0, "time_s": 120}}
    policy = folder / f"{name}-policy.yaml"
    policy.write_text(yaml.safe_dump(plain, sort_keys=False))
    title = " ".join(word.capitalize() for word in name.split("-"))
    return TrialSite(folder / name, SiteConfig(name=name, title=title, port=free_port()), policy)


def _publish(hospitals: list[TrialSite], images: int, size: int, seed: int) -> None:
    drawn, labels = draw_tissue_phantoms(images, seed=seed, size=size)
    ends = np.cumsum(list(HOSPITALS.values()))
    members = [np.flatnonzero(labels == k) for k in range(len(CLASSES))]
    cuts = [np.split(rows, (ends[:-1] * len(rows)).round().astype(int)) for rows in members]
    for k, hospital in enumerate(hospitals):
        rows = np.sort(np.concatenate([parts[k] for parts in cuts]))
        hospital.write_dataset(
            {"train": (drawn[rows], labels[rows])}, name=DATASET, classes=CLASSES,
            description="Stained tissue that does not exist", source="drawn by code",
        )  # fmt: skip


def _start(hospitals: list[TrialSite]) -> Federation:
    for hospital in hospitals:
        hospital.launch()
    password = generate_password()
    for hospital in hospitals:
        hospital.wait_until_up()
        hospital.add_account(RESEARCHER, "The researcher", password)
    return federation.connect(roster(hospitals), email=RESEARCHER, password=password)


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
app.command()(main)

if __name__ == "__main__":
    app()

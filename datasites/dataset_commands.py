"""`sitegate dataset …`: from a hospital's images to a published version, and back out of it."""

from __future__ import annotations

import csv
import functools
import getpass
import io
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from datasites.catalogue import is_intact, read_card, versions_on_disk
from datasites.certificate import read_certificate
from datasites.command_line import JsonOption, SiteOption, err, out, print_json, say, told_plainly
from datasites.config import Site, load_site
from datasites.control import Control
from datasites.errors import ConfigurationError, DatasetError
from datasites.files import write_private
from datasites.imaging.phantoms import draw_chest_phantoms
from datasites.imaging.scan import Scan, add_up, look
from datasites.imaging.sources.folder import Folder
from datasites.imaging.sources.medmnist import read_groups, read_medmnist
from datasites.imaging.sources.source import Source
from datasites.imaging.workers import Workers
from datasites.keys import load_pseudonyms, load_site_key
from datasites.lineage import latest_version, retired_because
from datasites.new_version import (
    Outcome,
    Publication,
    publish_arrays,
    publish_images,
)
from datasites.new_version import Progress as Reading
from datasites.publish_arguments import (
    check_options,
    check_report,
    identify,
    make_description,
    make_labels,
    parse_classes,
    parse_options,
    parse_shares,
)
from datasites.quarantine import name_quarantined
from datasites.show_imaging import (
    print_certificate,
    print_datasets,
    print_outcome,
    print_scan,
    print_seen,
)
from datasites.sources import SourceOptions, is_arrays, open_source
from datasites.withdrawal import retire_dataset, withdraw_patient

dataset_app = typer.Typer(
    no_args_is_help=True,
    help="Publish images as datasets, look at them, withdraw patients. A SOURCE is a folder or zip "
    "archive of DICOM, PNG or JPEG files; an .npz in the MedMNIST layout; a PACS as "
    "https://host/dicom-web or dicom://AETITLE@host:port; or receive:PORT to wait for pushes.",
)

SourceArgument = Annotated[str, typer.Argument(help="A folder, archive, .npz, or a PACS.")]
NameArgument = Annotated[str, typer.Argument(help="The dataset's name.")]
PACS = "A PACS"
ModalityOption = Annotated[str, typer.Option(help="Such as CT,MR.", rich_help_panel=PACS)]
SinceOption = Annotated[str, typer.Option(help="First study date.", rich_help_panel=PACS)]
UntilOption = Annotated[str, typer.Option(help="Last study date.", rich_help_panel=PACS)]
AccessionOption = Annotated[
    str, typer.Option(help="Accession numbers, a,b,…", rich_help_panel=PACS)
]
DescriptionOption = Annotated[
    str, typer.Option(help="Study description; * for anything.", rich_help_panel=PACS)
]
AllOption = Annotated[
    bool, typer.Option("--all-studies", help="The whole archive.", rich_help_panel=PACS)
]
AeOption = Annotated[str, typer.Option(help="Our own AE title.", rich_help_panel=PACS)]
SendersOption = Annotated[
    str, typer.Option(help="AE titles that may push, a,b,…", rich_help_panel=PACS)
]
MoveToOption = Annotated[
    str,
    typer.Option(help="Use C-MOVE to this AE title, ours at the PACS.", rich_help_panel=PACS),
]
MovePortOption = Annotated[
    int, typer.Option(help="Port that C-MOVE sends to.", rich_help_panel=PACS)
]
MoveHostOption = Annotated[
    str, typer.Option(help="Address that C-MOVE sends to.", rich_help_panel=PACS)
]
AuthorityOption = Annotated[
    Path | None, typer.Option(help="CA file (PEM) of the PACS.", rich_help_panel=PACS)
]
IdleOption = Annotated[
    float,
    typer.Option(help="Seconds without a push after which receiving ends.", rich_help_panel=PACS),
]
PublisherOption = Annotated[
    str | None,
    typer.Option("--as", envvar="SITEGATE_PERSON", help="Who publishes, for the certificate."),
]
WithdrawerOption = Annotated[
    str | None,
    typer.Option("--as", envvar="SITEGATE_PERSON", help="Who withdraws, for the certificate."),
]


@dataset_app.command("phantoms")
@told_plainly
def draw_phantoms(
    file: Annotated[Path, typer.Argument(help="The .npz file or, with --dicom, folder to make.")],
    count: Annotated[int, typer.Option(min=20, max=100_000, help="Training images.")] = 600,
    size: Annotated[int, typer.Option(min=28, max=224, help="Pixels across.")] = 28,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same images.")] = 0,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Write DICOM files of invented patients.")
    ] = False,
) -> None:
    """Draw chest X-ray phantoms, to try things without anyone's images."""
    if not file.resolve().parent.is_dir():
        raise ConfigurationError(f"there is no folder {file.parent} to write into")
    if dicom:
        _draw_dicom(file, count, size, seed)
        return
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for k, (split, share) in enumerate((("train", 1.0), ("val", 0.2), ("test", 0.4))):
        images, labels = draw_chest_phantoms(
            max(10, int(count * share)), seed=1000 * seed + k, size=size
        )
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez_compressed(file, **arrays)
    say(f"Drew {sum(len(a) for n, a in arrays.items() if n.endswith('labels'))} images: {file}")


def _draw_dicom(folder: Path, count: int, size: int, seed: int) -> None:
    from datasites.imaging.dicom_phantoms import MAKERS, write_chest_phantoms

    if folder.exists():
        raise ConfigurationError(f"{folder} is there already; name a folder that is not")
    if (folder.resolve().parent / "labels.csv").exists():
        raise ConfigurationError(
            f"there is a labels.csv beside {folder}; it would be replaced. Name another place"
        )
    images, labels = draw_chest_phantoms(count, seed=seed, size=size)
    table = write_chest_phantoms(
        folder,
        images,
        labels,
        maker=next(iter(MAKERS.values())),
        seed=seed,
        classes=("normal", "pneumonia"),
    )
    say(f"Drew {count} DICOM files of invented patients: {folder}; their classes: {table}")


@dataset_app.command("scan")
@told_plainly
def scan(
    source: SourceArgument,
    site: Annotated[
        Path | None,
        typer.Option("--site", envvar="SITEGATE_SITE", help="Use this site's policy."),
    ] = None,
    modality: ModalityOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    accession: AccessionOption = "",
    study_description: DescriptionOption = "",
    all_studies: AllOption = False,
    ae_title: AeOption = "SITEGATE",
    senders: SendersOption = "",
    move_to: MoveToOption = "",
    move_port: MovePortOption = 0,
    move_host: MoveHostOption = "127.0.0.1",
    authority: AuthorityOption = None,
    idle: IdleOption = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Look into a source: modalities, syntaxes, sizes, problems. Nothing is changed or kept."""
    options = SourceOptions(
        modality, since, until, accession, study_description, all_studies, ae_title, senders,
        move_to, move_port, move_host, authority, idle,
    )  # fmt: skip
    if is_arrays(source):
        splits = read_medmnist(Path(source))
        shapes = {split: [*images.shape] for split, (images, _) in splits.items()}
        if as_json:
            print_json({"arrays": shapes})
        else:
            for split, shape in shapes.items():
                say(f"{split:<6} {shape[0]:,} images of {' x '.join(map(str, shape[1:]))} uint8")
        return
    suspects = load_site(site).policy().publishing.suspect_modalities if site else ()
    found = Scan()
    with Workers() as workers, _bar() as bar:
        task = bar.add_task("Looking", total=None, rate="", quarantined="")
        opened = open_source(source, options, workers, _waiting(bar))
        units = opened.units(lambda _: False)
        looker = functools.partial(look, suspects=tuple(suspects))
        for unit in units:
            results = workers.map(looker, [list(unit.items)], None)
            add_up(found, (one for batch in results for one in batch))
            bar.update(task, completed=found.files, total=opened.items)
    if as_json:
        print_json(found.as_dict())
    else:
        print_scan(out, found)


@dataset_app.command("publish")
@told_plainly
def publish(
    source: SourceArgument,
    name: Annotated[str, typer.Option(help="The dataset's name, as policies know it.")],
    classes: Annotated[str, typer.Option(help="Class names in the order of the labels, a,b,…")],
    licence: Annotated[str, typer.Option(help="Under which conditions it may be used.")],
    described: Annotated[str, typer.Option("--description", help="What it is.")] = "",
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with `label` and one of sop_instance_uid, series_instance_uid, "
            "study_instance_uid, accession_number, patient, path.",
            rich_help_panel="Labels",
        ),
    ] = None,
    label_column: Annotated[
        str, typer.Option(help="The CSV's column of labels.", rich_help_panel="Labels")
    ] = "label",
    label_tag: Annotated[
        str | None,
        typer.Option(
            help="DICOM attribute that holds the label, by keyword.", rich_help_panel="Labels"
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            help="A column of the CSV that makes subgroups, such as sex; may be repeated.",
            rich_help_panel="Labels",
        ),
    ] = None,
    patient_per_file: Annotated[
        bool,
        typer.Option(
            "--patient-per-file",
            help="PNG and JPEG: every file is of another patient.",
            rich_help_panel="Labels",
        ),
    ] = False,
    standard: Annotated[
        Path | None,
        typer.Option(help="A study's standardisation, YAML.", rich_help_panel="Pixels"),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Pixels across, 28 to 1024.", rich_help_panel="Pixels")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="1 grey, 3 colour.", rich_help_panel="Pixels")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="uint8, float16 or float32.", rich_help_panel="Pixels"),
    ] = None,
    ct_window: Annotated[
        str | None,
        typer.Option(help="abdomen, bone, brain, lung, …", rich_help_panel="Pixels"),
    ] = None,
    slices: Annotated[
        str | None, typer.Option(help="all, middle, or every 5.", rich_help_panel="Pixels")
    ] = None,
    fit: Annotated[
        str | None, typer.Option(help="pad or crop to a square.", rich_help_panel="Pixels")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="An option of the de-identification profile; may be repeated.",
            rich_help_panel="De-identification",
        ),
    ] = None,
    splits: Annotated[
        str, typer.Option(help="Shares of train, val and test; patients are never divided.")
    ] = "0.7,0.1,0.2",
    seed: Annotated[int, typer.Option(min=0, help="Of the splits.")] = 0,
    person: PublisherOption = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write what is in quarantine to this CSV. It names files: guard it."),
    ] = None,
    modality: ModalityOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    accession: AccessionOption = "",
    study_description: DescriptionOption = "",
    all_studies: AllOption = False,
    ae_title: AeOption = "SITEGATE",
    senders: SendersOption = "",
    move_to: MoveToOption = "",
    move_port: MovePortOption = 0,
    move_host: MoveHostOption = "127.0.0.1",
    authority: AuthorityOption = None,
    idle: IdleOption = 600.0,
    site: SiteOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Publish images as an immutable, de-identified dataset version.

    May be stopped at any time; the same command goes on where it was.
    """
    opened = load_site(site)
    titles = parse_classes(classes)
    check_report(report, source)
    plain = {
        "size": size, "channels": channels, "dtype": dtype, "ct_window": ct_window,
        "slices": slices, "fit": fit,
    }  # fmt: skip
    options = SourceOptions(
        modality, since, until, accession, study_description, all_studies, ae_title, senders,
        move_to, move_port, move_host, authority, idle,
    )  # fmt: skip
    check_options(source, options, plain, bool(labels or label_tag or group or option or standard))
    publication = Publication(
        name=name,
        classes=titles,
        licence=licence,
        labels=make_labels(opened, titles, labels, label_column, label_tag, group or []),
        standardisation=make_description(standard, plain),
        options=parse_options(option or []),
        shares=parse_shares(splits),
        seed=seed,
        description=described,
        published_by=person or getpass.getuser(),
        patient_per_file=patient_per_file,
        identity=identify(opened, source, options, labels, label_column, label_tag, group),
    )
    if is_arrays(source):
        arrays = read_medmnist(Path(source))
        version, card = publish_arrays(
            opened,
            arrays,
            publication,
            f"MedMNIST-layout file {Path(source).name}",
            read_groups(Path(source), arrays),
        )
        if as_json:
            print_json({"version": version, "card": card.model_dump(mode="json")})
        else:
            say(f"{card.name} is version {version}")
        _announce(opened, as_json)
        return
    try:
        with Workers() as workers:
            with _bar() as bar:
                task = bar.add_task("Publishing", total=None, rate="", quarantined="")
                where = open_source(source, options, workers, _waiting(bar))
                outcome = publish_images(
                    opened, where, publication, workers, functools.partial(_show, bar, task)
                )
            if report is not None:
                _write_report(report, opened, where, workers, outcome)
    except KeyboardInterrupt:
        err.print("Stopped; the same command goes on where it was.")
        raise typer.Exit(130) from None
    if as_json:
        print_json(outcome.as_dict())
    else:
        print_outcome(out, outcome)
    _announce(opened, as_json)


@dataset_app.command("list")
@told_plainly
def list_datasets(site: SiteOption = Path(), as_json: JsonOption = False) -> None:
    """List the dataset versions in the store."""
    opened = load_site(site)
    cards = {v: read_card(opened.datasets, v) for v in versions_on_disk(opened.datasets)}
    if as_json:
        print_json({v: card.model_dump(mode="json") for v, card in cards.items()})
    else:
        retired = {v for v in cards if retired_because(opened.lineages, v) is not None}
        print_datasets(out, cards, retired)


@dataset_app.command("certificate")
@told_plainly
def show_certificate(
    name: NameArgument,
    version: Annotated[
        str | None, typer.Option(help="The version, or its beginning; default: the latest.")
    ] = None,
    site: SiteOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Show the de-identification certificate of a dataset, its signature verified."""
    opened = load_site(site)
    found = _version(opened, name, version)
    key = load_site_key(opened.keys).public_hex
    certificate = read_certificate(opened.datasets, found, key)
    if not is_intact(opened.datasets, found):
        raise DatasetError(f"the files of version {found[:12]} are not as they were certified")
    if as_json:
        print_json({"version": found, "public_key": key, **certificate.model_dump(mode="json")})
    else:
        print_certificate(out, certificate, found, key)


@dataset_app.command("standardisation")
@told_plainly
def show_standardisation(name: NameArgument, site: SiteOption = Path()) -> None:
    """Print how a dataset's arrays were made, to give to another hospital (`--standard`)."""
    opened = load_site(site)
    card = read_card(opened.datasets, _version(opened, name, None))
    if card.standardisation is None:
        raise DatasetError(f"`{name}` was published as arrays; nothing was standardised")
    tools = ", ".join(f"{tool} {version}" for tool, version in card.made_with.items())
    say(f"# Bit-identical arrays from the same files need the same libraries: {tools}")
    say(card.standardisation.as_yaml().rstrip())


@dataset_app.command("withdraw")
@told_plainly
def withdraw(
    name: NameArgument,
    patient: Annotated[
        str,
        typer.Option(
            prompt="Patient ID, as in the images",
            help="Patient ID as in the images, or the pseudonym; it is kept nowhere. "
            "Asked for when it is not given, so that it stays out of the shell's history.",
        ),
    ],
    person: WithdrawerOption = None,
    site: SiteOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Make a new version without a patient; nothing more runs on the old one."""
    opened = load_site(site)
    done = withdraw_patient(opened, name, patient, person or getpass.getuser())
    if as_json:
        print_json(done.as_dict())
    else:
        say(f"{done.images} images withdrawn. {name} is version {done.new}")
        say(f"Nothing runs on version {done.old[:12]} any more; it stays as evidence.")
        print_seen(out, done.seen)
    _announce(opened, as_json)


@dataset_app.command("retire")
@told_plainly
def retire(
    name: NameArgument,
    reason: Annotated[str, typer.Option(prompt=True, help="Why; it stays at the site.")],
    site: SiteOption = Path(),
) -> None:
    """Let nothing run on the latest version of a dataset any more."""
    opened = load_site(site)
    version, seen = retire_dataset(opened, name, reason)
    say(f"Nothing runs on {name} version {version[:12]} any more; it stays as evidence.")
    print_seen(out, seen)
    _announce(opened, False)


@dataset_app.command("pseudonym")
@told_plainly
def show_pseudonym(
    patient: Annotated[str, typer.Option(prompt="Patient ID, as in the images", help="The ID.")],
    site: SiteOption = Path(),
) -> None:
    """Print the key that stands for a patient at this site, for a CSV of labels."""
    if not patient.strip():
        raise ConfigurationError("an empty Patient ID stands for nobody")
    say(load_pseudonyms(load_site(site).keys).patient(patient))


def _version(site: Site, name: str, start: str | None) -> str:
    if start is None:
        found = latest_version(site.datasets, site.lineages, name)
        mine = [found] if found else []
    else:
        on_disk = [v for v in versions_on_disk(site.datasets) if v.startswith(start)]
        mine = [v for v in on_disk if read_card(site.datasets, v).name == name]
    if len(mine) != 1:
        raise DatasetError(
            f"there {'are several versions' if mine else 'is no version'} of `{name}` like that; "
            "see `sitegate dataset list`"
        )
    return mine[0]


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[quarantined]}"),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def _show(bar: Progress, task: TaskID, reading: Reading) -> None:
    speed = bar.tasks[0].speed
    bar.update(
        task,
        completed=reading.done,
        total=reading.total,
        rate=f"{speed:.0f}/s" if speed else "",
        quarantined=f"{reading.quarantined} in quarantine" if reading.quarantined else "",
    )


def _waiting(bar: Progress) -> Any:
    return lambda sentence: bar.console.print(sentence, style="yellow", markup=False)


def _write_report(
    path: Path, site: Site, source: Source, workers: Workers, outcome: Outcome
) -> None:
    if not isinstance(source, Folder):
        return
    rows = name_quarantined(source, workers, load_pseudonyms(site.keys), outcome.keys)
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["file", "reason", "detail"])
    table.writerows(rows)
    write_private(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _announce(site: Site, quiet: bool) -> None:
    """Let a running site publish what is new."""
    try:
        Control(site.control_socket).publish()
        told = "Researchers with an account here can see it now."
    except ConfigurationError:
        told = "The site does not run; researchers see it after `sitegate serve`."
    if not quiet:
        out.print(told)

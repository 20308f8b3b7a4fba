"""From what a person types after `dataset publish` to the source that is meant."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from datasites.errors import ConfigurationError
from datasites.imaging.sources.dicomweb import DicomWebSource
from datasites.imaging.sources.dimse import DimseSource
from datasites.imaging.sources.folder import Folder
from datasites.imaging.sources.query import Query, parse_day
from datasites.imaging.sources.receiver import Receiver
from datasites.imaging.sources.source import Source
from datasites.imaging.workers import Workers

RECEIVER = re.compile(r"receive:(?:(?P<host>[\w.\-]+):)?(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The options of a command that say which images of a PACS, and how to reach it."""

    modality: str = ""
    since: str = ""
    until: str = ""
    accession: str = ""
    description: str = ""
    all_studies: bool = False
    ae_title: str = "SITEGATE"
    senders: str = ""
    move_to: str = ""
    move_port: int = 0
    move_host: str = "127.0.0.1"
    authority: Path | None = None
    idle_s: float = 600.0

    @property
    def query_only(self) -> tuple[object, ...]:
        """What decides which images are meant, without how they are reached."""
        return (
            self.modality,
            self.since,
            self.until,
            self.accession,
            self.description,
            self.all_studies,
        )

    @property
    def query(self) -> Query:
        """What is asked for."""
        return Query(
            modalities=_listed(self.modality),
            study_from=parse_day(self.since) if self.since else None,
            study_to=parse_day(self.until) if self.until else None,
            accession_numbers=_listed(self.accession),
            study_description=self.description or None,
            everything=self.all_studies,
        )


def is_arrays(source: str) -> bool:
    """Whether a source holds arrays: an `.npz` in the MedMNIST layout."""
    return source.endswith(".npz")


def is_pacs(source: str) -> bool:
    """Whether a source is asked or waited for over the network, and not read from a disk."""
    return "://" in source or source.startswith("receive:")


def open_source(
    source: str, options: SourceOptions, workers: Workers, on_wait: Callable[[str], None]
) -> Source:
    """The source that is meant: a folder or archive, a PACS by its address, or a receiver.

    Raises:
        ConfigurationError: The address cannot be meant.
        UnreadableSourceError: There is no such folder, or the PACS refuses.
    """
    if source.startswith(("http://", "https://")):
        return DicomWebSource(
            source, query=options.query, ca_file=options.authority, on_wait=on_wait
        )
    if source.startswith(("dicom://", "dicoms://")):
        parts = urlsplit(source)
        if not (parts.username and parts.hostname and parts.port):
            raise ConfigurationError(
                f"`{source}` is no PACS; write dicom://AETITLE@host:port, for example "
                "dicom://ORTHANC@pacs.hospital.example:104 (dicoms:// for TLS)"
            )
        return DimseSource(
            parts.hostname,
            parts.port,
            parts.username,
            query=options.query,
            calling_ae=options.ae_title,
            move_to=options.move_to or None,
            move_port=options.move_port,
            move_host=options.move_host,
            tls=_tls(options.authority) if parts.scheme == "dicoms" else None,
            on_wait=on_wait,
        )
    if (found := RECEIVER.fullmatch(source)) is not None:
        if not 0 < int(found["port"]) <= 65_535:
            raise ConfigurationError(f"`{source}` names no port; ports are 1 to 65535")
        return Receiver(
            ae_title=options.ae_title,
            port=int(found["port"]),
            host=found["host"] or "127.0.0.1",
            callers=_listed(options.senders),
            idle_s=options.idle_s,
        )
    return Folder(Path(source), workers)


def _tls(authority: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{authority} is no file of CA certificates (PEM)") from error


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())

"""Safe data: which images a request was about, and how they were de-identified."""

from __future__ import annotations

from collections.abc import Sequence

from datasites.audit_events import Event
from datasites.catalogue import Card
from datasites.certificate import Certificate
from datasites.evidence.claims import Basis, Line, Safe, Statement, numbers, of_kind
from datasites.evidence.documents import CARD, CERTIFICATE, Documents
from datasites.evidence.sentences import counted, listed, short


def data_statements(lines: Sequence[Line], documents: Documents) -> list[Statement]:
    """What card and certificate of the dataset version say; the lines name their hash."""
    version = documents.terms.version
    is_version = documents.version_sha256 == version
    named = of_kind(lines, Event.DATASET_PUBLISHED, Event.REQUEST_SUBMITTED)
    proving = numbers(named) if is_version else ()
    found = []
    if documents.card is None:
        text = f"The site no longer has the card of version {short(version)}."
        found.append(Statement(Safe.DATA, text, Basis.CONFIGURATION))
    else:
        text = _card_in_words(documents.card)
        found.append(Statement(Safe.DATA, text, Basis.DOCUMENT, proving, (CARD,)))
    if documents.certificate is None:
        text = f"The site has no de-identification certificate of version {short(version)}."
        found.append(Statement(Safe.DATA, text, Basis.CONFIGURATION))
    else:
        said = _certificate_in_words(documents.certificate.document)
        found += [Statement(Safe.DATA, t, Basis.DOCUMENT, proving, (CERTIFICATE,)) for t in said]
    if is_version:
        text = (
            f"The hashes of card, certificate and image arrays together are the version "
            f"{short(version)} that the log names."
        )
        found.append(Statement(Safe.DATA, text, Basis.DOCUMENT, proving, (CARD, CERTIFICATE)))
    return found


def _card_in_words(card: Card) -> str:
    images = card.images("train")
    number = counted(images, "training image") if images is not None else (
        "training images, with a class of fewer than "
        f"{card.minimum_count} in a number that is not shown,"
    )  # fmt: skip
    size = " × ".join(str(n) for n in card.shape)
    return (
        f"Its card names {number} of {size} ({card.dtype}) in the classes "
        f"{listed(list(card.classes))}, from {card.source}, licence: {card.licence}."
    )


def _certificate_in_words(certificate: Certificate) -> list[str]:
    patients = (
        counted(certificate.patients, "patient")
        if certificate.patients is not None
        else "patients whom nobody counted"
    )
    methods = listed([f"{m.code} {m.meaning}" for m in certificate.methods])
    left_out = sum(certificate.quarantined.values())
    said = [
        f"Its certificate, signed by the site, counts {counted(certificate.images, 'image')} of "
        f"{patients}, and {counted(left_out, 'file')} as left out.",
        f"The certificate lists the methods {methods}."
        if methods
        else "The certificate lists no method: the source held arrays without headers.",
    ]
    if certificate.not_applied:
        said.append(f"The certificate names as not applied: {'; '.join(certificate.not_applied)}.")
    search = certificate.text_search
    said.append(
        f"{search.tool} searched {counted(search.searched, 'image')} for text and found it in "
        f"{search.found:,}, which were left out."
        if search.tool
        else "Pixels were not searched for text."
    )
    return said

"""What can be wrong with a source or with one image of it, in words that help and identify nobody.

A source that cannot be used at all raises `UnreadableSourceError`. An image that cannot be
published raises `Quarantined`: it is counted under its reason and left out; the others go on.
"""

from __future__ import annotations

from enum import StrEnum


class UnreadableSourceError(ValueError):
    """A source that is not what it should be; the message says what was found."""


class SourceLostError(UnreadableSourceError):
    """A source that answered before and no longer does; publishing can be resumed later."""


class Reason(StrEnum):
    """Why an image is in quarantine; the value is the word in tables and in the certificate."""

    NOT_AN_IMAGE = "not an image"
    """No DICOM, PNG or JPEG file, or a DICOM object without pixels (a report, a PDF, a plan)."""
    BROKEN = "broken file"
    """The file claims to be an image and cannot be read to its end."""
    UNSUPPORTED = "not supported"
    """A modality, transfer syntax or photometric interpretation that is not read."""
    TOO_LARGE = "too large"
    """More pixels, frames or bytes than the limits allow, by its header or in fact."""
    OUTSIDE = "outside the source"
    """A link or an archive member that leads out of the folder that was named."""
    DUPLICATE = "duplicate"
    """The same SOP instance, or the same file, was read before."""
    WITHDRAWN = "withdrawn patient"
    """The patient was withdrawn from this dataset before."""
    NO_PATIENT = "no patient"
    """Nothing says whose image it is, so that splits by patient cannot be kept."""
    MARKED_BURNED_IN = "marked as burned in"
    """BurnedInAnnotation (0028,0301) is YES."""
    SUSPECT_DEVICE = "device or modality known for text"
    """A modality or device known for text in its pixels, and not marked as free of it."""
    TEXT_FOUND = "text found in pixels"
    """Optical character recognition read words in the image."""
    RECOGNISABLE = "recognisable head"
    """CT or MR of a head, which shows a face, under a policy that does not allow it."""
    NO_LABEL = "no label"
    """The labels say nothing about it."""
    TWO_LABELS = "two different labels"
    """The labels contradict each other."""
    UNKNOWN_CLASS = "unknown class"
    """Its label is none of the classes."""


class Quarantined(Exception):
    """One image is left out. The detail goes to the owner's table: no identifier stands in it."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type[Quarantined], tuple[Reason, str]]:
        return Quarantined, (self.reason, self.detail)

"""The site's own records: requests, approvals, runs, people. SQLAlchemy; SQLite by default."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, UniqueConstraint, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from datasites.errors import RecordError


class Base(DeclarativeBase):
    """All tables of site.db."""


class Person(Base):
    """Someone of the hospital, with a role and a password of their own (argon2id)."""

    __tablename__ = "people"
    email: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    role: Mapped[str]
    password_hash: Mapped[str]
    created_at: Mapped[str]


class Researcher(Base):
    """What the hospital wrote down about a researcher's account; the account itself is syft's."""

    __tablename__ = "researchers"
    email: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    institution: Mapped[str]
    created_at: Mapped[str]


class PolicyRow(Base):
    """A policy that was in force, as it was adopted: the text with its comments, and who did it."""

    __tablename__ = "policies"
    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(index=True)
    text: Mapped[str]
    adopted_at: Mapped[str]
    adopted_by: Mapped[str]
    reason: Mapped[str]


class PublishedDataset(Base):
    """A dataset version that researchers can see, and its handle's id in syft."""

    __tablename__ = "datasets"
    version: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    published_at: Mapped[str]
    syft_asset: Mapped[str]


class RequestRow(Base):
    """A request as it was submitted, and what was decided about it."""

    __tablename__ = "requests"
    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(index=True)
    submitted_at: Mapped[str]
    follows: Mapped[int]
    text: Mapped[str]
    text_sha256: Mapped[str]
    terms: Mapped[str]
    terms_sha256: Mapped[str]
    state: Mapped[str]
    reason: Mapped[str]
    decided_by: Mapped[str]
    decided_at: Mapped[str]
    syft_request: Mapped[str]
    syft_code: Mapped[str] = mapped_column(unique=True)


class DecisionRow(Base):
    """One person's signed decision about a request, exactly as signed."""

    __tablename__ = "decisions"
    id: Mapped[int] = mapped_column(primary_key=True)
    request: Mapped[int] = mapped_column(index=True)
    document: Mapped[str]
    signature: Mapped[str]


class RehearsalRow(Base):
    """What happened when a request's text ran on the mock."""

    __tablename__ = "rehearsals"
    id: Mapped[int] = mapped_column(primary_key=True)
    request: Mapped[int] = mapped_column(index=True)
    at: Mapped[str]
    report: Mapped[str]


class ApprovalRow(Base):
    """A signed approval document, exactly as signed."""

    __tablename__ = "approvals"
    id: Mapped[int] = mapped_column(primary_key=True)
    request: Mapped[int] = mapped_column(index=True)
    document: Mapped[str]
    signature: Mapped[str]
    revoked: Mapped[str]


class RunRow(Base):
    """One run of the ledger; it is charged when the row is written and never given back."""

    __tablename__ = "runs"
    __table_args__ = (UniqueConstraint("request", "round", "attempt"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    request: Mapped[int] = mapped_column(index=True)
    approval: Mapped[int] = mapped_column(index=True)
    round: Mapped[int]
    attempt: Mapped[int]
    arguments_sha256: Mapped[str]
    state: Mapped[str]
    starts: Mapped[int]
    charged_at: Mapped[str]
    settled_at: Mapped[str]
    outcome: Mapped[str]


class ChargeRow(Base):
    """What one run does to the patients' privacy; written with the run, and never given back."""

    __tablename__ = "privacy_charges"
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(unique=True)
    request: Mapped[int] = mapped_column(index=True)
    dataset: Mapped[str] = mapped_column(index=True)
    mechanism: Mapped[str]
    charged_at: Mapped[str] = mapped_column(index=True)


class Nonce(Base):
    """A call that was answered; it is not answered again."""

    __tablename__ = "nonces"
    nonce: Mapped[str] = mapped_column(primary_key=True)
    expires: Mapped[float] = mapped_column(index=True)


class Records:
    """The open database. Writers take turns; what is committed survives `kill -9`."""

    def __init__(self, url: str) -> None:
        self._engine: Engine = create_engine(url)
        self._turn = threading.Lock()
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _make_durable)
        try:
            Base.metadata.create_all(self._engine)
        except SQLAlchemyError as error:
            raise RecordError("the site's records cannot be opened; is the disk full?") from error

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: all of it is committed, or nothing.

        Raises:
            RecordError: The database refused, for example because the disk is full.
        """
        with self._turn, Session(self._engine, expire_on_commit=False) as session:
            try:
                yield session
                session.commit()
            except SQLAlchemyError as error:
                session.rollback()
                raise RecordError(
                    "the site's records cannot be written; nothing was changed"
                ) from error

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; rows stay usable after it."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _make_durable(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "busy_timeout=5000",
        "wal_autocheckpoint=100",  # pages: a log of 400 kB beside the records, not of 4 MB
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def a_day_ago() -> str:
    """The time 24 hours ago, as records write it; such texts sort by time."""
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    return before.isoformat(timespec="microseconds").replace("+00:00", "Z")


def utc_now() -> str:
    """The time as records write it: `2026-11-22T09:14:05.123456Z`."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

"""What the hospital wrote down about researchers; their accounts are syft's."""

from __future__ import annotations

from sqlalchemy import select

from datasites.errors import AccountError
from datasites.open_site import OpenSite, SyftSide
from datasites.people import Role, find_person
from datasites.records import Records, Researcher, utc_now


def find_researcher(records: Records, email: str) -> Researcher | None:
    """The researcher with an address, whatever its capitals."""
    with records.read() as session:
        known = session.scalars(select(Researcher)).all()
    return next((r for r in known if r.email.casefold() == email.casefold()), None)


def free_address(site: OpenSite, syft: SyftSide, email: str) -> str:
    """The address under which a researcher's account can be made, as syft will keep it.

    Where a crash came between writing a researcher down and making the account, the account can be
    made now.

    Raises:
        AccountError: It is none, it has an account, or it is that of compliance.
    """
    address = syft.free_address(email)
    person = find_person(site.records, address)
    if person is not None and person.role == Role.COMPLIANCE:
        raise AccountError(
            f"{person.email} is compliance here, which has no researcher's account. Give "
            "another address"
        )
    known = find_researcher(site.records, address)
    return syft.free_address(known.email) if known else address


def write_down(records: Records, email: str, name: str, institution: str) -> None:
    """Write a researcher down, or correct what stands there."""
    with records.write() as session:
        session.merge(
            Researcher(email=email, name=name, institution=institution, created_at=utc_now())
        )

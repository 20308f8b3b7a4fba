"""Makes dataset versions in the store visible to researchers; doing it again changes nothing."""

from __future__ import annotations

from datasites.audit_log import Event
from datasites.catalogue import is_intact, read_card, versions_on_disk
from datasites.errors import DatasetError
from datasites.open_site import OpenSite, SyftSide
from datasites.records import PublishedDataset, utc_now


def publish_all(site: OpenSite, syft: SyftSide) -> list[str]:
    """Publish every version in the store that is not published yet; warm up the cages of all.

    Returns:
        The versions that are new.

    Raises:
        DatasetError: A version's files no longer have the hash that names them.
    """
    new = []
    for version in versions_on_disk(site.site.datasets):
        with site.records.read() as session:
            known = session.get(PublishedDataset, version) is not None
        if not known:
            _publish(site, syft, version)
            new.append(version)
        site.cage(version)
    return new


def _publish(site: OpenSite, syft: SyftSide, version: str) -> None:
    if not is_intact(site.site.datasets, version):
        raise DatasetError(f"the files of version {version[:12]} are not what its name says")
    card = read_card(site.site.datasets, version)
    site.audit.append(Event.DATASET_PUBLISHED, "site", card.name, version=version)
    asset = syft.publish(card.name, version)
    with site.records.write() as session:
        session.add(
            PublishedDataset(
                version=version, name=card.name, published_at=utc_now(), syft_asset=asset
            )
        )

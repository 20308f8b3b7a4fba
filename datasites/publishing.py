"""Makes dataset versions in the store visible to researchers; doing it again changes nothing."""

from __future__ import annotations

from datasites.audit_log import Event, read_events
from datasites.catalogue import is_intact, read_card, versions_on_disk
from datasites.errors import DatasetError
from datasites.lineage import retired_because
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
        if retired_because(site.site.lineages, version) is None:
            site.cage(version)
    _log_withdrawals(site)
    return new


def _log_withdrawals(site: OpenSite) -> None:
    """Record each version that was retired since, once; it may have been while the site was off."""
    logged = {
        line["objects"]["version"]
        for line in read_events(site.site.audit)
        if line["event"] == Event.DATASET_WITHDRAWN
    }
    for version in versions_on_disk(site.site.datasets):
        reason = retired_because(site.site.lineages, version)
        if reason is not None and version not in logged:
            name = read_card(site.site.datasets, version).name
            site.audit.append(Event.DATASET_WITHDRAWN, "site", name, version=version, reason=reason)


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

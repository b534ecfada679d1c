"""Find the account that pays for an event."""

from collections.abc import Mapping
from uuid import UUID

from billing.ingestion.events import Event, QuarantineReason, UnbookableEvent

AccountKey = tuple[UUID, str]
"""Organization and bucket."""


def account_key(event: Event, organizations: Mapping[int, UUID]) -> AccountKey | None:
    """Return the organization and bucket that pay for an event, or None if nobody pays.

    Raises `UnbookableEvent` if the event contradicts what is known about its project.
    """
    organization_id = organizations.get(event.project_id)
    if organization_id is None:
        raise UnbookableEvent(
            QuarantineReason.PROJECT_UNKNOWN, f"there is no project {event.project_id}"
        )
    if event.organization_id not in (None, organization_id):
        raise UnbookableEvent(
            QuarantineReason.ORGANIZATION_MISMATCH, f"the project belongs to {organization_id}"
        )
    if event.bucket is None:
        return None
    if event.account not in (None, f"{organization_id}:{event.bucket}"):
        raise UnbookableEvent(
            QuarantineReason.ACCOUNT_MISMATCH,
            f"the product is paid from {organization_id}:{event.bucket}",
        )
    return organization_id, event.bucket

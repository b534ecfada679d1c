"""Making a revocation known: to processes outside Django by the change feed, to ours by Redis."""

from collections.abc import Iterable

from django.db import transaction

from projects import change_feed, credential_cache


def announce(credential_sha256s: Iterable[str]) -> None:
    """Say that these credentials, given by their SHA-256, must be looked up afresh.

    Belongs last into the transaction that revokes them, so that the announcement is committed with
    the deed or not at all. A credential that works again later is simply found valid when it is
    looked up.
    """
    announced = [{"sha256": digest} for digest in credential_sha256s]
    if announced:
        with transaction.atomic():
            change_feed.append(change_feed.Change.Kind.CREDENTIAL_REVOKED, announced)
            credential_cache.renew_generation_on_commit()

"""Announcing revocations: to the gateway in the change feed, to Django processes in Redis."""

from collections.abc import Iterable

from django.db import transaction

from projects import change_feed, credential_cache


def announce(credential_sha256s: Iterable[str]) -> None:
    """Announce that these credentials, given by their SHA-256, must be looked up again.

    Call it last in the transaction that revokes them, so that both are committed or neither. A
    credential that is valid again later needs no announcement: the next lookup finds it valid.
    """
    announced = [{"sha256": digest} for digest in credential_sha256s]
    if announced:
        with transaction.atomic():
            change_feed.append(change_feed.Change.Kind.CREDENTIAL_REVOKED, announced)
            credential_cache.renew_generation_on_commit()

"""A project's standings as the JSON body of `quota_limits`."""

import hashlib
import json
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from projects.principal import ProjectIdentity
from quota.resources import MICRO, RESOURCES
from quota.standing import Standing
from quota.state import ServiceQuestion, Standings, service_fields

_encode = json.JSONEncoder(separators=(",", ":")).encode


def render(
    identity: ProjectIdentity, found: Standings, question: ServiceQuestion | None
) -> tuple[str, str]:
    """Return the body and its entity tag, which covers everything but `as_of`.

    With `question`, each resource also has the fields for service callers. Raises `QuotaUnknown` if
    those cannot be read.
    """
    body = _encode(
        {
            "limited": {
                resource: _resource(standing)
                | ({} if question is None else service_fields(standing, identity.id, question))
                for resource, standing in found.resources.items()
            },
            "organization_id": str(identity.organization_id),
            "version": sum(
                standing.published.version
                for standing in found.resources.values()
                if standing.published
            ),
        }
    )
    tag = hashlib.blake2b(body.encode(), digest_size=16).hexdigest()
    return f'{body[:-1]},"as_of":"{utc_time(found.now)}"}}', f'"{tag}"'


def _resource(standing: Standing) -> dict[str, Any]:
    published = standing.published
    return {
        "limited": standing.limited,
        "state": standing.state,
        "reason": standing.reason,
        "usage": _credits(published.usage_micro if published else None),
        "limit": _credits(published.limit_micro if published else None),
        "remaining": _credits(published.remaining_micro if published else None),
        "limited_until": utc_time(standing.limited_until),
        "resets_at": utc_time(standing.resets_at),
        "resets_at_local": _local_time(standing),
        "time_zone": standing.time_zone,
        "mode": published.mode if published else "hard",
        "credits_per_usd": float(RESOURCES[standing.resource].credits_per_usd),
    }


def _credits(micro: int | None) -> float | None:
    return None if micro is None else micro / MICRO


def _local_time(standing: Standing) -> str | None:
    """Return the reset in the limit's time zone, with its offset."""
    if standing.resets_at is None:
        return None
    local = standing.resets_at.astimezone(ZoneInfo(standing.time_zone))
    return local.isoformat(timespec="seconds")


def utc_time(instant: datetime | None) -> str | None:
    """Return an instant in UTC as the API writes it, to the second. None stays None."""
    return None if instant is None else f"{instant.isoformat()[:19]}Z"

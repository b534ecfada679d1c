"""Blocks that somebody set by hand in Redis: seen there, kept in rows, told in the change feed.

Redis alone decides about them; the rows are for the admin, and for answers while Redis is silent.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from uuid import UUID

import redis
from django.db import transaction
from django.utils import timezone

from projects import change_feed
from projects.models import Project
from quota.account_state import FAR_FUTURE
from quota.models import SetMember
from quota.published import changes, limited_set, redis_client
from quota.published.limited_set import Member
from quota.reasons import Reason

logger = logging.getLogger(__name__)

MAX_TOKEN_LENGTH = 200
"""Anybody may write anything into a set; what cannot be a token is not kept."""


def record_seen(seen: Mapping[Member, float]) -> int:
    """Make the rows match the blocks just seen, by their scores; return how many differed.

    Several reconcilers may notice at once: the change feed's lock lets one tell it.
    """
    wanted = {
        (resource, token): math.ceil(min(score, FAR_FUTURE))
        for (resource, token), score in seen.items()
        if len(token) <= MAX_TOKEN_LENGTH and token.isprintable()
    }
    if _known() == wanted:
        return 0
    with transaction.atomic():
        change_feed.cursor(lock=True)
        known = _known()
        changed = {
            member
            for member in known.keys() | wanted.keys()
            if known.get(member) != wanted.get(member)
        }
        projects = Project.objects.in_bulk({token for _, token in changed}, field_name="api_token")
        _delete(changed - wanted.keys())
        _write({member: wanted[member] for member in changed & wanted.keys()}, projects)
        changes.record(
            (resource, projects[token]) for resource, token in sorted(changed) if token in projects
        )
    return len(changed)


def carry_over(organization_id: UUID, former: str, token: str) -> None:
    """Let blocks set by hand hold for the API token that replaces another, before it is committed.

    While Redis is silent there is nothing to carry: such blocks live there alone.

    The caller's transaction is open and holds the locks of one organization's accounts. After the
    commit would be too late, for the new token is good from then on. It is safe here: Redis gets no
    longer than `redis_client` states, about a second in all, and none while it is known to be
    silent; its failure ends nothing; and after a rollback the score stands for a token that nobody
    has, and lapses.
    """
    try:
        reading = limited_set.read(organization_id, former)
        for resource, found in reading.resources.items():
            score = found.score if found.is_by_hand else None
            if score is not None and score > reading.now.timestamp():
                redis_client.client().zadd(limited_set.limits_key(resource), {token: score})
    except (limited_set.RedisUnavailable, redis.RedisError) as error:
        logger.warning("blocks set by hand do not follow a token that is replaced: %r", error)


def _known() -> dict[Member, int | None]:
    rows = SetMember.objects.filter(origin=SetMember.Origin.BY_HAND)
    return {
        (resource, token): score
        for resource, token, score in rows.values_list("resource", "token", "limited_until")
    }


def _delete(members: Iterable[Member]) -> None:
    for resource, token in members:
        SetMember.objects.filter(
            origin=SetMember.Origin.BY_HAND, resource=resource, token=token
        ).delete()


def _write(scores: Mapping[Member, int], projects: Mapping[str, Project]) -> None:
    now = timezone.now()
    for (resource, token), score in scores.items():
        project = projects.get(token)
        SetMember.objects.update_or_create(
            origin=SetMember.Origin.BY_HAND,
            resource=resource,
            token=token,
            defaults={"limited_until": score, "changed_at": now},
            create_defaults={
                "limited_until": score,
                "changed_at": now,
                "since": now,
                "reason": Reason.SET_BY_HAND,
                "project": project,
                "organization_id": project.organization_id if project else None,
            },
        )

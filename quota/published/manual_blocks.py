"""Blocks that somebody set by hand in Redis: copied to rows and reported in the change feed.

Redis decides whether such a block is in force. The rows are for the admin, and for answers while
Redis does not answer.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from uuid import UUID

import redis
from django.db import transaction
from django.db.models import QuerySet
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
"""A set may hold anything that somebody wrote by hand; what cannot be a token gets no row."""


def record_seen(seen: Mapping[Member, float]) -> None:
    """Make the rows match all blocks just seen and their scores.

    Several processes may record at once. The change feed's lock makes sure that only one of them
    records the change.
    """
    _record(seen, SetMember.objects.filter(origin=SetMember.Origin.BY_HAND))


def record_answered(api_token: str, scores: Mapping[str, float]) -> None:
    """Make one token's rows match its blocks, by resource, before a caller is told about them.

    For callers that ask again only after a change. A block can come and go, or go and come back,
    between two looks of the reconciler, which finds the change only if the rows have the answer.
    """
    rows = SetMember.objects.filter(origin=SetMember.Origin.BY_HAND, token=api_token)
    _record({(resource, api_token): score for resource, score in scores.items()}, rows)


def _record(seen: Mapping[Member, float], rows: QuerySet[SetMember]) -> None:
    wanted = {
        (resource, token): math.ceil(min(score, FAR_FUTURE))
        for (resource, token), score in seen.items()
        if len(token) <= MAX_TOKEN_LENGTH and token.isprintable()
    }
    if _scores(rows) == wanted:
        return
    with transaction.atomic():
        change_feed.cursor(lock=True)
        known = _scores(rows)
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


def carry_over(organization_id: UUID, old_token: str, new_token: str) -> None:
    """Copy blocks set by hand from an API token to the one that replaces it.

    Call it before the commit, because the new token is valid from then on. The caller's transaction
    holds the locks of one organization's accounts meanwhile, and that is safe:

    * Redis gets the short timeouts of `redis_client`, about a second in all, and isn't asked at all
      while it is known not to answer.
    * If Redis fails, the replacement goes on. Nothing is copied then.
    * After a rollback the score belongs to a token that nobody has, and it expires.
    """
    try:
        reading = limited_set.read(organization_id, old_token)
        for resource, found in reading.resources.items():
            score = found.score if found.is_by_hand else None
            if score is not None and score > reading.now.timestamp():
                redis_client.client().zadd(limited_set.limits_key(resource), {new_token: score})
    except (limited_set.RedisUnavailable, redis.RedisError) as error:
        logger.warning("blocks set by hand were not copied to a replaced token: %r", error)


def _scores(rows: QuerySet[SetMember]) -> dict[Member, int | None]:
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

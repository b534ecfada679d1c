"""Comparing Redis with the published rows, and repairing the differences.

A repair reads Redis first and the database second. A publication is committed before it is pushed,
so everything in Redis is in the rows by then. If Redis still holds a newer version than the
database, the database was restored from a backup, and Redis has to follow it back.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from uuid import UUID

from django.db.models import QuerySet

from quota.account_state import Account
from quota.models import QuotaState, SetMember
from quota.published import delta, redis_client
from quota.published.delta import AccountDelta, MemberScores
from quota.published.limited_set import (
    STATES,
    Entry,
    Member,
    limits_key,
    published_key,
    suspended_key,
)
from quota.resources import RESOURCES

logger = logging.getLogger(__name__)

SLICE = 500


def compare_blocks() -> tuple[int, dict[Member, float]]:
    """Compare every score in the sorted sets with the published blocks and graces; repair them.

    Return how many repairs were needed, and the scores of the blocks that were set by hand.
    """
    now = int(redis_client.client().time()[0])
    observed = {
        (resource, column): _observe(resource, column)
        for resource in RESOURCES
        for column in ("limited_until", "suspended_until")
    }
    wrong: set[Member] = set()
    by_hand: dict[Member, float] = {}
    for (resource, column), present in observed.items():
        wanted = dict(
            SetMember.objects.filter(
                origin=SetMember.Origin.PUBLISHED, resource=resource, **{f"{column}__gt": now}
            ).values_list("token", column)
        )
        wrong |= {
            (resource, token)
            for token, score in wanted.items()
            if token not in present or present[token][0] != score
        }
        for token, (score, written) in present.items():
            if score == written and wanted.get(token) != score:
                wrong.add((resource, token))
            elif score != written and column == "limited_until":
                by_hand[resource, token] = score
    return _repair_members(wrong), by_hand


def compare(accounts: Collection[Account]) -> int:
    """Compare the versions of these accounts and their members; return the number of repairs."""
    wrong: set[Account] = set()
    for part in _parts(accounts):
        states = _state_versions(part)
        members = _member_versions(part)
        in_redis = _versions(STATES, [f"{pk}:{resource}" for pk, resource in states])
        wrong |= {
            account
            for account, version in states.items()
            if in_redis[f"{account[0]}:{account[1]}"] != version
        }
        entries = _entry_versions(members)
        wrong |= {
            account for member, (account, version) in members.items() if entries[member] != version
        }
    return push_accounts(wrong)


def push_accounts(accounts: Collection[Account], *, building: str | None = None) -> int:
    """Push everything published about these accounts; return how many entries differed in Redis.

    `building` is the key of the rebuild that this push is part of. Raises what
    `quota.published.delta.push` raises.
    """
    changed = 0
    for part in _parts(accounts):
        in_redis = _versions(STATES, [f"{pk}:{resource}" for pk, resource in part])
        entries = _entry_versions(_member_versions(part))
        organizations = _organizations(part)
        members: dict[Account, list[MemberScores]] = {}
        for organization, resource, token, version, limited, suspended in (
            _published()
            .filter(organization_id__in=organizations)
            .values_list(
                "organization_id",
                "resource",
                "token",
                "version",
                "limited_until",
                "suspended_until",
            )
        ):
            replaces = _newest(version, entries.get((resource, token), version))
            members.setdefault((organization, resource), []).append(
                MemberScores(token, version, limited, suspended, replaces)
            )
        states = QuotaState.objects.filter(organization_id__in=organizations).values_list(
            "organization_id", "resource", "version", "document"
        )
        changed += delta.push(
            (
                AccountDelta(
                    account := f"{organization}:{resource}",
                    resource,
                    members.get((organization, resource), ()),
                    document,
                    version,
                    _newest(version, in_redis[account]),
                )
                for organization, resource, version, document in states
                if (organization, resource) in part
            ),
            building=building,
        )
    return changed


def _observe(resource: str, column: str) -> dict[str, tuple[float, float | None]]:
    """Return, for each member of a sorted set, its score and the score we wrote for it, if any."""
    key = limits_key(resource) if column == "limited_until" else suspended_key(resource)
    reply = redis_client.script("observe")(keys=[key, published_key(resource)])
    observed = {}
    for token, score, text in zip(reply[::3], reply[1::3], reply[2::3], strict=True):
        entry = Entry.parse(text)
        observed[token] = float(score), getattr(entry, column) if entry else None
    return observed


def _repair_members(members: Collection[Member]) -> int:
    accounts: set[Account] = set()
    unknown = set(members)
    tokens = sorted({token for _, token in members})
    for at in range(0, len(tokens), SLICE):
        rows = _published().filter(token__in=tokens[at : at + SLICE])
        for organization, resource, token in rows.values_list(
            "organization_id", "resource", "token"
        ):
            if (resource, token) in unknown:
                accounts.add((organization, resource))
                unknown.discard((resource, token))
    return push_accounts(accounts) + delta.forget(unknown)


def _newest(version: int, in_redis: int) -> int:
    """Return the newest version that a push of `version` has to replace."""
    if in_redis > version:
        logger.error("Redis has a newer version than the database: was the database restored?")
    return max(version, in_redis)


def _published() -> QuerySet[SetMember]:
    return SetMember.objects.filter(origin=SetMember.Origin.PUBLISHED, organization__isnull=False)


def _organizations(accounts: Iterable[Account]) -> set[UUID]:
    return {organization for organization, _ in accounts}


def _state_versions(accounts: Collection[Account]) -> dict[Account, int]:
    rows = QuotaState.objects.filter(organization_id__in=_organizations(accounts))
    return {
        (organization, resource): version
        for organization, resource, version in rows.values_list(
            "organization_id", "resource", "version"
        )
        if (organization, resource) in accounts
    }


def _member_versions(accounts: Collection[Account]) -> dict[Member, tuple[Account, int]]:
    rows = _published().filter(organization_id__in=_organizations(accounts))
    return {
        (resource, token): ((organization, resource), version)
        for organization, resource, token, version in rows.values_list(
            "organization_id", "resource", "token", "version"
        )
        if (organization, resource) in accounts
    }


def _entry_versions(members: Iterable[Member]) -> dict[Member, int]:
    tokens: dict[str, list[str]] = {}
    for resource, token in members:
        tokens.setdefault(resource, []).append(token)
    return {
        (resource, token): version
        for resource, wanted in tokens.items()
        for token, version in _versions(published_key(resource), wanted).items()
    }


def _versions(key: str, names: list[str]) -> Mapping[str, int]:
    if not names:
        return {}
    return dict(zip(names, redis_client.script("versions")(keys=[key], args=names), strict=True))


def _parts(accounts: Collection[Account]) -> Iterable[set[Account]]:
    ordered = sorted(accounts)
    return (set(ordered[at : at + SLICE]) for at in range(0, len(ordered), SLICE))

"""Writing to the sorted sets, one account at a time. A version fences each member.

A push never replaces what a newer publication wrote, tombstones included. It removes or overwrites
a score only if a push wrote it or if it has expired.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from quota.published import redis_client
from quota.published.limited_set import STATES, Member, limits_key, published_key, suspended_key

PIPELINED = 200


@dataclass(frozen=True, slots=True)
class MemberScores:
    """The scores that one project API token should have in the sorted sets.

    They replace entries up to the version `replaces`, by default their own version.
    """

    token: str
    version: int
    limited_until: int | None = None
    suspended_until: int | None = None
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class AccountDelta:
    """What to write for one account: its state as JSON, if that changed, and some members.

    The state replaces states up to the version `replaces`, by default its own version.
    """

    account: str
    resource: str
    members: Sequence[MemberScores] = ()
    document: str = ""
    version: int = 0
    replaces: int | None = None


class RebuildLost(Exception):
    """Redis was wiped while it was being rebuilt."""


def push(deltas: Iterable[AccountDelta], *, building: str | None = None) -> int:
    """Bring Redis up to date, each account atomically; return how many entries changed.

    `building` is the key of the rebuild that this push is part of. Raises `redis.RedisError`, and
    `RebuildLost` if the rebuild's key is gone.
    """
    script = redis_client.script("push")
    changed = 0
    remaining = iter(deltas)
    while batch := list(islice(remaining, PIPELINED)):
        with redis_client.client().pipeline(transaction=False) as pipeline:
            for delta in batch:
                script(_keys(delta.resource, building), _arguments(delta), client=pipeline)
            for count in pipeline.execute():
                if count is None:
                    raise RebuildLost
                changed += count
    return changed


def forget(members: Iterable[Member]) -> int:
    """Remove everything we wrote for these members; return how many entries were removed."""
    with redis_client.client().pipeline(transaction=True) as pipeline:
        for resource, token in members:
            pipeline.zrem(limits_key(resource), token)
            pipeline.zrem(suspended_key(resource), token)
            pipeline.hdel(published_key(resource), token)
        removed: int = sum(pipeline.execute())
    return removed


def _keys(resource: str, building: str | None) -> list[str]:
    keys = [limits_key(resource), suspended_key(resource), published_key(resource), STATES]
    return keys if building is None else [*keys, building]


def _arguments(delta: AccountDelta) -> list[str | int]:
    arguments: list[str | int] = [
        delta.account,
        delta.document,
        delta.version,
        _or(delta.replaces, delta.version),
    ]
    for member in delta.members:
        arguments += [
            member.token,
            member.version,
            _or(member.replaces, member.version),
            _or(member.limited_until, "-"),
            _or(member.suspended_until, "-"),
        ]
    return arguments


def _or(value: int | None, otherwise: str | int) -> str | int:
    return otherwise if value is None else value

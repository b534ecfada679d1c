"""Writing to the sorted sets: account by account, fenced by version for each member.

A push never replaces what a newer publication wrote, a tombstone included, and removes or
overwrites a score only if it was written by a push or has passed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from quota.published import redis_client
from quota.published.limited_set import STATES, Member, limits_key, published_key, suspended_key

PIPELINED = 200


@dataclass(frozen=True, slots=True)
class MemberScores:
    """What one project API token shall have in the sets.

    Replaces an entry of at most the version `replaces`: its own, unless said otherwise.
    """

    token: str
    version: int
    limited_until: int | None = None
    suspended_until: int | None = None
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class AccountDelta:
    """What Redis shall hold of one account: its state as JSON, if it changed, and some members.

    The state replaces one of at most the version `replaces`: its own, unless said otherwise.
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
    """Bring Redis up to date, each account atomically; return how many keys or members changed.

    With `building`, the key of a rebuild, it writes as a part of that.
    Raises `redis.RedisError`, and `RebuildLost` when the rebuild's key is gone.
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
    """Remove what we wrote for members that nobody publishes any more."""
    removed = 0
    with redis_client.client().pipeline(transaction=True) as pipeline:
        for resource, token in members:
            pipeline.zrem(limits_key(resource), token)
            pipeline.zrem(suspended_key(resource), token)
            pipeline.hdel(published_key(resource), token)
        if pipeline.command_stack:
            removed = sum(pipeline.execute())
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

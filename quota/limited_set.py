"""The sorted sets in Django's Redis, and the private keys that make them trustworthy.

* `@posthog/quota-limits/<resource>`: project API token → unix seconds until which it is limited.
* `@posthog/quota-limiting-suspended/<resource>`: the same for the end of a grace.
* `tollgate:quota:published:<resource>`: project API token → `version limit suspended`, the newest
  publication and the scores that we wrote ourselves (`-`: none). So a tombstone is an entry too.
* `tollgate:quota:states`: account → `version json`, the published state.
* `tollgate:quota:marker`: a nonce that says "everything published is here". It lapses in 5 s
  unless the reconciler renews it.
* `tollgate:quota:building:<nonce>`: a rebuild is under way; gone, Redis was wiped meanwhile.

A set is anybody's to write by hand. What is written here is fenced by version for each member, and
removes or overwrites a score only if it wrote that score itself or the score has passed.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import redis

from projects.credential_cache import GENERATION_KEY
from quota import redis_client
from quota.account_state import FAR_FUTURE, AccountState, from_json
from quota.resources import RESOURCES

MARKER = "tollgate:quota:marker"
STATES = "tollgate:quota:states"
BUILDING_SECONDS = 60


def limits_key(resource: str) -> str:
    """Return the sorted set of limited projects."""
    return f"@posthog/quota-limits/{resource}"


def suspended_key(resource: str) -> str:
    """Return the sorted set of projects whose limiting is suspended by a grace."""
    return f"@posthog/quota-limiting-suspended/{resource}"


def published_key(resource: str) -> str:
    """Return the hash of what was published for each member."""
    return f"tollgate:quota:published:{resource}"


def building_key(nonce: str) -> str:
    """Return the key that a rebuild keeps alive."""
    return f"tollgate:quota:building:{nonce}"


class RedisUnavailable(Exception):
    """Redis did not answer in time, or not in a way that can be understood."""


# One reply of a script is as atomic as a MULTI and costs the client less than half of it.
_READ = """
local reply = {redis.call('TIME'), redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}
for i = 4, #KEYS, 3 do
  reply[#reply + 1] = redis.call('ZSCORE', KEYS[i], ARGV[1])
  reply[#reply + 1] = redis.call('ZSCORE', KEYS[i + 1], ARGV[1])
  reply[#reply + 1] = redis.call('HGET', KEYS[i + 2], ARGV[1])
  reply[#reply + 1] = redis.call('HGET', KEYS[3], ARGV[(i - 4) / 3 + 2])
end
return reply
"""

# KEYS: limits, suspended, published, states, and while rebuilding the building key.
# ARGV: fence ('1', or '0' to overwrite whatever is there), account, its version, its state or '',
#       then for each member: token, version, limited until or '-', suspended until or '-'.
# Returns {what was changed, what was refused as older}, or nothing when the rebuild was lost.
_PUSH = """
if KEYS[5] and redis.call('EXISTS', KEYS[5]) == 0 then return false end
local now = tonumber(redis.call('TIME')[1])
local fenced = ARGV[1] == '1'
local changed, refused = 0, 0

local function version_of(entry)
  return entry and tonumber(string.match(entry, '^%d+')) or -1
end

local function install(set, token, written, wanted)
  local actual = redis.call('ZSCORE', set, token)
  local until_ = actual and tonumber(actual)
  if until_ and until_ > now and until_ ~= tonumber(written) then return '-' end
  local score = tonumber(wanted)
  if score and score > now then
    if until_ ~= score then
      redis.call('ZADD', set, wanted, token)
      changed = changed + 1
    end
    return wanted
  end
  if actual then
    redis.call('ZREM', set, token)
    changed = changed + 1
  end
  return '-'
end

if ARGV[4] ~= '' then
  local entry = redis.call('HGET', KEYS[4], ARGV[2])
  local version = tonumber(ARGV[3])
  if fenced and version_of(entry) > version then
    refused = refused + 1
  else
    local wanted = ARGV[3] .. ' ' .. ARGV[4]
    if entry ~= wanted then
      redis.call('HSET', KEYS[4], ARGV[2], wanted)
      changed = changed + 1
    end
  end
end

for i = 5, #ARGV, 4 do
  local token, version = ARGV[i], tonumber(ARGV[i + 1])
  local entry = redis.call('HGET', KEYS[3], token)
  if fenced and version_of(entry) > version then
    refused = refused + 1
  else
    local limited, suspended = '-', '-'
    if entry then limited, suspended = string.match(entry, '^%d+ (%S+) (%S+)$') end
    limited = install(KEYS[1], token, limited, ARGV[i + 2])
    suspended = install(KEYS[2], token, suspended, ARGV[i + 3])
    local wanted = ARGV[i + 1] .. ' ' .. limited .. ' ' .. suspended
    if entry ~= wanted then redis.call('HSET', KEYS[3], token, wanted) end
  end
end
return {changed, refused}
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """The newest publication of a member, with the scores that were written for it."""

    version: int
    limited_until: float | None
    suspended_until: float | None


@dataclass(frozen=True, slots=True)
class ResourceReading:
    """What Redis holds about one project and resource."""

    score: float | None
    suspended: float | None
    entry: Entry | None
    state: AccountState | None

    def is_by_hand(self) -> bool:
        """Tell whether the member's score is not one that we wrote."""
        return self.score is not None and (
            self.entry is None or self.entry.limited_until != self.score
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What one atomic read of Redis found.

    `is_complete` tells whether the absence of a member means anything: the marker is there, and
    this process did not reconnect while an older one could still be alive.
    """

    now: datetime
    is_complete: bool
    generation: str | None
    resources: dict[str, ResourceReading]


@dataclass(frozen=True, slots=True)
class MemberScores:
    """What one project API token shall have in the sets, by its publication's version."""

    token: str
    version: int
    limited_until: int | None
    suspended_until: int | None


@dataclass(frozen=True, slots=True)
class AccountDelta:
    """What Redis shall hold of one account: its state, if it changed, and some of its members."""

    organization_id: UUID
    resource: str
    state: AccountState | None
    members: Sequence[MemberScores] = ()


@dataclass(frozen=True, slots=True)
class Pushed:
    """How many keys or members a push changed, and how many were newer than what it brought."""

    changed: int
    refused: int


_KEYS = [MARKER, GENERATION_KEY, STATES] + [
    key(resource) for resource in RESOURCES for key in (limits_key, suspended_key, published_key)
]


def read(organization_id: UUID, api_token: str) -> Reading:
    """Read everything about one project in one round trip.

    Raises `RedisUnavailable`; at once, without asking, for a second after Redis failed to answer.
    """
    if redis_client.health.is_silent:
        raise RedisUnavailable("Redis failed to answer within the last second")
    fields = [f"{organization_id}:{resource}" for resource in RESOURCES]
    try:
        reply = _script(_READ)(keys=_KEYS, args=[api_token, *fields])
        (seconds, microseconds), marker, generation, *rest = reply
        return Reading(
            now=datetime.fromtimestamp(int(seconds), UTC).replace(microsecond=int(microseconds)),
            is_complete=marker is not None and redis_client.health.is_trusted,
            generation=generation,
            resources={
                resource: ResourceReading(
                    score=_score(rest[at]),
                    suspended=_score(rest[at + 1]),
                    entry=_entry(rest[at + 2]),
                    state=_state(rest[at + 3]),
                )
                for at, resource in zip(range(0, len(rest), 4), RESOURCES, strict=True)
            },
        )
    except redis.RedisError as error:
        redis_client.health.failed()
        raise RedisUnavailable(str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RedisUnavailable(f"a private key holds what we never write: {error}") from error


def push(
    deltas: Iterable[AccountDelta], *, fenced: bool = True, nonce: str | None = None
) -> Pushed:
    """Bring Redis up to date with publications, each account atomically.

    A member whose entry is newer is left as it is, unless `fenced` is off (for a database that was
    itself restored). With a `nonce`, pushes as part of that rebuild.
    Raises `redis.RedisError`, and `RebuildLost` when Redis was wiped since the rebuild began.
    """
    script = _script(_PUSH)
    changed = refused = 0
    for batch in _batched(deltas, 200):
        with redis_client.client().pipeline(transaction=False) as pipeline:
            for delta in batch:
                script(
                    keys=_push_keys(delta.resource, nonce),
                    args=_push_arguments(delta, fenced),
                    client=pipeline,
                )
            for counts in pipeline.execute():
                if counts is None:
                    raise RebuildLost
                changed += counts[0]
                refused += counts[1]
    return Pushed(changed, refused)


class RebuildLost(Exception):
    """Redis was wiped while it was being rebuilt."""


def _push_keys(resource: str, nonce: str | None) -> list[str]:
    keys = [limits_key(resource), suspended_key(resource), published_key(resource), STATES]
    return keys if nonce is None else [*keys, building_key(nonce)]


def _push_arguments(delta: AccountDelta, fenced: bool) -> list[str | int]:
    state = delta.state
    arguments: list[str | int] = [
        1 if fenced else 0,
        f"{delta.organization_id}:{delta.resource}",
        0 if state is None else state.version,
        "" if state is None else state.to_json(),
    ]
    for member in delta.members:
        arguments += [member.token, member.version]
        arguments += [
            "-" if score is None else score
            for score in (member.limited_until, member.suspended_until)
        ]
    return arguments


def instant(score: float | None) -> datetime | None:
    """Return a score as a time; None for none and for one that never passes."""
    if score is None or score >= FAR_FUTURE or score < 0 or math.isnan(score):
        return None
    return datetime.fromtimestamp(math.ceil(score), UTC)


def _score(text: str | None) -> float | None:
    return None if text is None else float(text)


def _entry(text: str | None) -> Entry | None:
    if text is None:
        return None
    version, limited, suspended = text.split(" ")
    return Entry(
        int(version),
        None if limited == "-" else float(limited),
        None if suspended == "-" else float(suspended),
    )


def _state(text: str | None) -> AccountState | None:
    return None if text is None else from_json(text.partition(" ")[2])


_scripts: dict[str, redis.commands.core.Script] = {}


def _script(source: str) -> redis.commands.core.Script:
    found = _scripts.get(source)
    if found is None:
        found = _scripts[source] = redis_client.client().register_script(source)
    return found


def _batched(items: Iterable[AccountDelta], size: int) -> Iterator[list[AccountDelta]]:
    batch: list[AccountDelta] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch

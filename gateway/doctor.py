"""`python -m gateway.doctor`: check the gateway's Redis, Django and the providers."""

import asyncio
import sys
import time

import msgspec
from environs import EnvValidationError

from gateway import keys
from gateway.network.client import ConnectFailed, ExchangeFailed, HttpClient, Origin
from gateway.network.redis_connection import Redis, RedisError, RedisUnavailable
from gateway.resolver.tollgate_api import TollgateApi, TollgateUnavailable, TollgateUnusable
from gateway.settings import Settings, Upstream, from_environment

PATIENCE = 4.0
"""Seconds for one answer."""
MOST_CLOCK_DIFFERENCE = 2.0
OLDEST_EVENT = 300
MAX_ANSWER = 4 << 20


class Finding(msgspec.Struct, frozen=True):
    """The state of one thing, and what to do about it. `level`: ok, warning or error."""

    check: str
    level: str
    message: str
    do: str = ""


async def findings(settings: Settings) -> list[Finding]:
    """Check everything, one after the other. Changes nothing."""
    redis = Redis(settings.redis_url)
    try:
        async with asyncio.timeout(2 * PATIENCE):
            found = await _redis(redis)
    except (RedisUnavailable, RedisError, TimeoutError) as error:
        said = f"it does not answer ({type(error).__name__}): no call is let through"
        do = "Start it, or correct GATEWAY_REDIS_URL."
        found = [Finding("gateway redis", "error", said, do)]
    finally:
        redis.close()
    found.append(await _django(settings))
    found += [await _provider(settings, upstream) for upstream in settings.upstreams.values()]
    return found


async def _redis(redis: Redis) -> list[Finding]:
    told = dict(
        line.split(":", 1)
        for line in bytes(await redis.execute("INFO")).decode().splitlines()
        if ":" in line
    )
    version = told.get("valkey_version") or told.get("redis_version", "of unknown version")
    found = [Finding("gateway redis", "ok", f"version {version} answers")]
    policy = told.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        said = f"it evicts keys when its memory is full ({policy}): holds and events would be lost"
        found.append(
            Finding("gateway memory", "error", said, "Set maxmemory-policy to noeviction.")
        )
    found += [await _data(redis, told), await _clock(redis), await _events(redis)]
    if aside := await redis.execute("XLEN", keys.SET_ASIDE):
        said = f"{aside} events were set aside, because billing could not book them"
        do = f"Read them (XRANGE {keys.SET_ASIDE} - +), and Quarantined events in the admin."
        found.append(Finding("gateway aside", "warning", said, do))
    return found


async def _clock(redis: Redis) -> Finding:
    seconds, micro = await redis.execute("TIME")
    ahead = int(seconds) + int(micro) / 1e6 - time.time()
    said = f"the clock of its Redis differs by {abs(ahead):.1f} s"
    if abs(ahead) <= MOST_CLOCK_DIFFERENCE:
        return Finding("gateway clock", "ok", said)
    return Finding("gateway clock", "warning", said, "Synchronise the clocks of all machines.")


async def _data(redis: Redis, told: dict[str, str]) -> Finding:
    if told.get("aof_enabled") != "1":
        said = "its append-only file is off: a restart loses usage events, which are money"
        do = "Set appendonly to yes, and appendfsync to always."
        return Finding("gateway data", "error", said, do)
    if told.get("aof_last_write_status", "ok") != "ok":
        said = "its last write to disk failed"
        return Finding("gateway data", "error", said, "Make room on its disk.")
    return await _fsync(redis)


async def _fsync(redis: Redis) -> Finding:
    try:
        answer = await redis.execute("CONFIG", "GET", "appendfsync")
    except RedisError:
        return Finding("gateway data", "ok", "the append-only file is on; CONFIG is forbidden")
    pairs = (
        answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    )
    value = {bytes(name): bytes(value).decode() for name, value in pairs}.get(b"appendfsync", "")
    if value == "always":
        return Finding("gateway data", "ok", "every event is on disk before a call is answered")
    said = f"appendfsync is {value}: a power loss can lose the last second of events"
    return Finding("gateway data", "warning", said, "Set appendfsync to always in production.")


async def _events(redis: Redis) -> Finding:
    oldest = await redis.execute("XRANGE", keys.EVENTS, "-", "+", "COUNT", 1)
    if not oldest:
        return Finding("gateway events", "ok", "none wait for billing")
    waiting = await redis.execute("XLEN", keys.EVENTS)
    age = time.time() - int(bytes(oldest[0][0]).split(b"-")[0]) / 1000
    said = f"{waiting} wait for billing, the oldest for {age:.0f} s"
    if age <= OLDEST_EVENT:
        return Finding("gateway events", "ok", said)
    do = "Start Django, or correct TOLLGATE_URL. The events are delivered then."
    return Finding("gateway events", "error", said, do)


async def _django(settings: Settings) -> Finding:
    api = TollgateApi(settings)
    try:
        answer = await api.changes(None, "")
    except TollgateUnavailable as error:
        do = "Start Django, or correct TOLLGATE_URL."
        return Finding("gateway django", "error", f"Django does not answer ({error})", do)
    except TollgateUnusable as error:
        do = "401: GATEWAY_SERVICE_TOKEN differs. 404: TOLLGATE_URL. 400: ALLOWED_HOSTS."
        return Finding("gateway django", "error", f"Django refuses our question ({error})", do)
    finally:
        api.close()
    return Finding("gateway django", "ok", f"its change feed is at version {answer.version}")


async def _provider(settings: Settings, upstream: Upstream) -> Finding:
    """Ask for the list of models, which costs nothing and needs the key."""
    name = f"provider {upstream.name}"
    if not upstream.key:
        return Finding(name, "ok", "it has no key here, so it was not asked")
    headers = [(b"accept", b"application/json")]
    if upstream.name == "anthropic":
        headers += [(b"x-api-key", upstream.key.encode()), (b"anthropic-version", b"2023-06-01")]
    else:
        headers.append((b"authorization", f"Bearer {upstream.key}".encode()))
    client = HttpClient(PATIENCE, settings.egress)
    try:
        async with asyncio.timeout(2 * PATIENCE):
            status, _ = await client.fetch(
                Origin.of(upstream.url), "GET", "/v1/models", headers, b"", MAX_ANSWER
            )
    except (ConnectFailed, ExchangeFailed, TimeoutError) as error:
        do = "See DNS, firewall and HTTPS_PROXY of this machine, and the provider's status page."
        return Finding(name, "error", f"it does not answer ({type(error).__name__})", do)
    finally:
        client.close()
    if status in (401, 403):
        do = f"Correct {upstream.name.upper()}_API_KEY and restart the gateway."
        return Finding(name, "error", f"it refuses our key ({status})", do)
    if status >= 500:
        return Finding(name, "warning", f"it answers {status}", "See its status page.")
    return Finding(name, "ok", "it answers, and takes our key" if status == 200 else "it answers")


def main(arguments: list[str]) -> int:
    """Print the findings, as JSON with `--json`; return 1 if one is an error."""
    try:
        settings = from_environment()
    except EnvValidationError as error:
        sys.stderr.write(f"The gateway cannot start: {error}\n")
        return 2
    found = asyncio.run(findings(settings))
    if arguments == ["--json"]:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        for one in found:
            sys.stdout.write(f"{one.level:<8} {one.check:<18} {one.message}\n")
            if one.do:
                sys.stdout.write(f"{'':<27} → {one.do}\n")
    return 1 if any(one.level == "error" for one in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

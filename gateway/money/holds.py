"""Holds: credits reserved before a call and settled after it, in the gateway's Redis.

An account has `allotment − spent − held` left. Each change is one Lua script, so any number of
processes share the account exactly. A process renews the lease of its holds; when it dies, the
group's leader books them at their bound (`reaper.py`). Amounts are integers of micro-credits.
"""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
import structlog
from msgspec.structs import replace

from gateway import keys
from gateway.network.redis_connection import Redis, RedisError, RedisUnavailable, Script
from gateway.telemetry import metrics

logger = structlog.get_logger("gateway.money.holds")

HOLD = Script("hold")
SETTLE = Script("settle")
RESTORE = Script("restore")
PRECHECK = Script("precheck")

# How long a process remembers its settlements, to repeat them if Redis falls back to an earlier
# state. Redis remembers their ids for longer, so repeating them is harmless.
REMEMBERED_SECONDS = 5.0
MARK_MS = 60_000
# While a process still has to repeat a settlement that got no answer, Redis keeps all of its ids.
LONGEST_MARK_MS = 86_400_000
REPLAY_GRACE = 2.0
FIRST_RETRY, LAST_RETRY = 0.05, 2.0
"""Seconds between two attempts to settle: at first, and at last."""
# While Redis is down, at most this many events of calls that nobody pays for are kept in memory.
MAX_UNPAID_WAITING = 10_000

Status = Literal[
    "held", "limited", "short", "project_cap", "user_cap", "run_cap", "rate", "unknown",
    "unknown_user", "closed", "rewound", "excessive",
]  # fmt: skip


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """What a call asks to hold. `record` is what the reaper needs to book the call.

    `scopes` are the keys of the caps within the account that count this hold; the script returns
    them. `reserve_micro` must be left of the run's cap in addition to the bound.
    """

    hold_id: str
    project_id: int
    resource: str
    account: str
    bound_micro: int
    credential_sha256: str
    task_run_id: str | None
    user: str
    record: bytes
    scopes: str = ""
    reserve_micro: int = 0
    accepted_micro: int | None = None


class HoldResult(msgspec.Struct, frozen=True, gc=False):
    """Redis' answer to a reservation. `remaining_micro` is -1 for an unlimited account.

    `answer` is Django's answer about the project, if the call is refused. `age_ms` is how long ago
    it was last confirmed, `answer_age_ms` how long ago it was given. `run_percent` is the
    percentage of its cap that the run had used or held before, or -1 if it has no cap.
    """

    status: Status
    remaining_micro: int = 0
    held_micro: int = 0
    age_ms: int = 0
    answer: bytes = b""
    answer_age_ms: int = 0
    run_percent: int = -1


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """The end of a call: its cost and event. Without an account, nothing is debited.

    `correct` returns the settlement to book instead if the reaper took this process for dead and
    has already booked the hold at its bound.
    """

    hold_id: str
    mode: Literal["hold", "reap", "force", "release"]
    cost_micro: int = 0
    event: bytes = b""
    account: str = ""
    group: str = ""
    correct: "Callable[[], Settlement] | None" = None
    scopes: str = ""


class Holds:
    """The holds of this process."""

    def __init__(
        self,
        redis: Redis,
        *,
        lease: float,
        open_window: float,
        run_cap_micro: int | None,
        requests_per_minute: int,
        copies: int = 0,
    ) -> None:
        """`copies` is how many events may wait for PostHog, or 0 if it gets none."""
        self.owner = uuid.uuid4().hex
        self._holds_key = keys.holds(self.owner)
        self._redis = redis
        self._lease_ms = int(lease * 1000)
        self._window_ms = int(open_window * 1000)
        self._run_cap = "" if run_cap_micro is None else str(run_cap_micro)
        self._per_minute = requests_per_minute
        self._copies = copies
        self._sequence = 0
        self._generation = ""
        self._server = ""
        self._active: dict[str, Reservation] = {}
        self._remembered: deque[tuple[float, Settlement]] = deque()
        self._unsettled: deque[Settlement] = deque()
        self._retrying: asyncio.Task[None] | None = None
        self._replaying: asyncio.Task[None] | None = None

    @property
    def unsettled(self) -> int:
        """How many settlements Redis has not confirmed yet."""
        return len(self._unsettled)

    async def hold(self, wanted: Reservation) -> HoldResult:
        """Reserve credits; return whether that worked, or why not.

        Raises `RedisUnavailable` or `RedisError`; nothing stays reserved then.
        """
        if self._replaying is not None and not self._replaying.done():
            return HoldResult("rewound")
        run = keys.run(wanted.task_run_id) if wanted.task_run_id else ""
        again = wanted.hold_id in self._active
        if not again:
            self._active[wanted.hold_id] = wanted
        try:
            answer = await self._redis.run(
                HOLD,
                (
                    keys.project(wanted.project_id, wanted.resource),
                    keys.FEED,
                    self._holds_key,
                    keys.OWNERS,
                    keys.rate(wanted.credential_sha256),
                    keys.SEQUENCE,
                    run,
                    keys.GENERATION,
                ),
                wanted.hold_id,
                wanted.bound_micro,
                self.owner,
                self._lease_ms,
                self._window_ms,
                self._sequence,
                wanted.record,
                self._run_cap,
                self._per_minute,
                self._generation,
                wanted.project_id,
                wanted.user,
                wanted.reserve_micro,
                "" if wanted.accepted_micro is None else wanted.accepted_micro,
            )
        except (RedisUnavailable, RedisError, asyncio.CancelledError):
            # Redis may have made the reservation anyway, so release it as soon as Redis answers.
            metrics.REDIS_FAILURES.labels("hold").inc()
            self.release(wanted.hold_id)
            raise
        result = HoldResult(answer[0].decode(), *answer[1:6])
        if result.status == "held" and self._restarted():
            result = replace(result, status="rewound")  # the replay releases it
        if result.status == "held":
            self._sequence = max(self._sequence, answer[6])
            result = replace(result, run_percent=answer[8])
            if len(answer[7]) > len(run):  # scopes beside that of the run, which is known
                self._active[wanted.hold_id] = replace(wanted, scopes=answer[7].decode())
        else:
            if not again:  # a hold from an earlier attempt is still held
                del self._active[wanted.hold_id]
            if result.status == "rewound":
                self._replay()
        return result

    async def precheck(
        self, project_id: int, resource: str, credential_sha256: str
    ) -> tuple[str, bytes, int]:
        """Return why a call would be refused whatever its bound: "limited", "rate", or "".

        Also returns Django's answer about the project, and how many milliseconds the credential has
        to wait. Raises `RedisUnavailable` or `RedisError`.
        """
        status, answer, wait_ms = await self._redis.run(
            PRECHECK,
            (keys.project(project_id, resource), keys.rate(credential_sha256)),
            self._per_minute,
        )
        return status.decode(), answer, wait_ms

    async def settle(self, settlement: Settlement) -> None:
        """End a hold, or book a call that had none.

        Never fails. If Redis does not confirm the settlement, or the task is cancelled, it is
        repeated in the background until Redis does; if this process dies first, the reaper books
        the hold at its bound. Beyond `MAX_UNPAID_WAITING`, events of unpaid calls are dropped.
        """
        try:
            await self._settle(settlement)
        except (RedisUnavailable, RedisError):
            metrics.REDIS_FAILURES.labels("settle").inc()
            if not settlement.account and len(self._unsettled) >= MAX_UNPAID_WAITING:
                metrics.EVENTS_DROPPED.inc()
            else:
                self._spool(settlement)
        except asyncio.CancelledError:
            self._spool(settlement)
            raise

    def release(self, hold_id: str) -> None:
        """Release a hold in the background. It gets no event."""
        self._spool(Settlement(hold_id, "release"))

    async def _settle(self, settlement: Settlement) -> None:
        status, sequence = await run_settlement(self._redis, self.owner, settlement, self._copies)
        # The hold stays active until its call is booked, because it names the scopes that count it.
        active = self._active.get(settlement.hold_id)
        if sequence < self._sequence or self._restarted():
            self._replay()
        if status == b"settled":
            self._sequence = max(self._sequence, sequence)
            if settlement.mode != "release":
                self._remembered.append((time.monotonic(), _forced(settlement, active)))
        elif status == b"gone" and settlement.mode == "hold":
            # Redis lost the hold, so nobody has booked the call.
            await self._settle(_forced(settlement, active))
        elif status == b"reaped" and settlement.mode == "hold" and settlement.correct:
            logger.warning("hold was booked by another process", hold_id=settlement.hold_id)
            await self._settle(replace(settlement.correct(), scopes=_scopes(active)))
        self._active.pop(settlement.hold_id, None)

    def _spool(self, settlement: Settlement) -> None:
        self._unsettled.append(settlement)
        if self._retrying is None or self._retrying.done():
            self._retrying = asyncio.create_task(self._retry())

    async def _retry(self) -> None:
        delay = FIRST_RETRY
        while self._unsettled:
            settlement = self._unsettled[0]
            try:
                await self._settle(settlement)
            except RedisUnavailable:
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY)
            except RedisError:
                logger.exception("a settlement was refused", hold_id=settlement.hold_id)
                await asyncio.sleep(LAST_RETRY)
                self._unsettled.append(self._unsettled.popleft())
            else:
                self._unsettled.popleft()
                delay = FIRST_RETRY

    async def drain(self) -> None:
        """Wait until every settlement is confirmed."""
        while self._retrying is not None and not self._retrying.done():
            await asyncio.wait([self._retrying])

    async def beat(self) -> None:
        """Renew the lease, notice when Redis fell back to an earlier state, and release strays."""
        began = time.monotonic()
        now_ms = await self._redis.now_ms()
        await self._redis.execute("ZADD", keys.OWNERS, now_ms + self._lease_ms, self.owner)
        sequence, generation = await self._state_of_redis()
        if sequence < self._sequence or generation != self._generation or self._restarted():
            # Don't forget anything before the replay, however long Redis was down: the remembered
            # settlements and ids are needed to repeat exactly what was lost.
            self._replay()
        elif self._replaying is None or self._replaying.done():
            self._sequence = sequence
            await self._forget_before(began, now_ms)
            await self._release_strays()

    async def _forget_before(self, began: float, now_ms: int) -> None:
        """Forget settlements that Redis has already persisted."""
        while self._remembered and self._remembered[0][0] < began - REMEMBERED_SECONDS:
            self._remembered.popleft()
        if self._unsettled:
            now_ms -= LONGEST_MARK_MS
        settled = keys.settled(self.owner)
        await self._redis.execute("ZREMRANGEBYSCORE", settled, "-inf", now_ms)
        await self._redis.execute("PEXPIRE", settled, LONGEST_MARK_MS)

    async def _release_strays(self) -> None:
        """Release holds of calls that are over.

        A command that got no answer may reach Redis after its connection broke, and so make a hold
        that was released already. Releasing a hold that was settled meanwhile does nothing.
        """
        for raw in await self._redis.execute("HKEYS", self._holds_key):
            if (hold_id := raw.decode()) not in self._active:
                self.release(hold_id)

    async def retire(self) -> None:
        """Settle what is left, then end the lease. The reaper books holds that remain."""
        await self.drain()
        await self._release_strays()
        await self.drain()
        await self._redis.execute("ZADD", keys.OWNERS, 0, self.owner)

    def _restarted(self) -> bool:
        """Return whether Redis was restarted. The sequence may not show what it lost."""
        self._server = self._server or self._redis.server
        return self._redis.server != self._server

    def _replay(self) -> None:
        if self._replaying is None or self._replaying.done():
            self._replaying = asyncio.create_task(self._repeat_what_redis_forgot())

    async def _repeat_what_redis_forgot(self) -> None:
        """Repeat recent settlements, restore open holds, then admit calls again.

        The first process to notice writes a new generation, so the others notice too. No process
        admits calls until all of them had time to repeat what they remember.
        """
        sequence, generation = await self._state_of_redis()
        server = self._redis.server
        if sequence < self._sequence:
            metrics.LOST_DATA.labels("rewound").inc()
            logger.error("redis fell back to an earlier state; repeating recent settlements")
            generation = uuid.uuid4().hex
            await self._redis.execute("SET", keys.GENERATION, generation)
        epoch = await self._redis.execute("GET", keys.GROUP_EPOCH)
        for _, settlement in list(self._remembered):
            same_group = epoch is not None and settlement.group.endswith(epoch.decode())
            # If Redis lost everything, this is a new group now. Spending of the old group reduces
            # the new group's allotment once billing has booked it.
            account = settlement.account if same_group else ""
            repeated = replace(settlement, account=account)
            await run_settlement(self._redis, self.owner, repeated, self._copies)
        for active in list(self._active.values()):
            await self._redis.run(
                RESTORE,
                [keys.holds(self.owner), keys.settled(self.owner), keys.SEQUENCE],
                active.hold_id, active.account, active.bound_micro, _scopes(active), active.record,
            )  # fmt: skip
        await self._release_strays()
        if self._sequence:
            await asyncio.sleep(REPLAY_GRACE)
        self._generation, self._server = generation, server
        self._sequence, _ = await self._state_of_redis()

    async def _state_of_redis(self) -> tuple[int, str]:
        """Return the sequence and the generation that Redis has now."""
        sequence, generation = await self._redis.execute("MGET", keys.SEQUENCE, keys.GENERATION)
        return int(sequence or 0), (generation or b"").decode()


def run_settlement(
    redis: Redis, owner: str, settlement: Settlement, copies: int
) -> Awaitable[tuple[bytes, int]]:
    """Run the settlement on the owner's holds; return its status and the sequence.

    A copy of the event is queued for PostHog as long as fewer than `copies` are waiting.
    """
    return redis.run(
        SETTLE,
        (
            keys.holds(owner),
            keys.EVENTS,
            keys.SEQUENCE,
            keys.settled(owner),
            keys.REAPED,
            keys.POSTHOG_EVENTS,
            keys.POSTHOG_LEFT_OUT,
        ),
        settlement.mode,
        settlement.hold_id,
        settlement.cost_micro,
        settlement.event,
        settlement.account,
        MARK_MS,
        copies,
        settlement.scopes,
    )


def _scopes(active: Reservation | None) -> str:
    """Return the scopes within the account that count a hold."""
    if active is None:
        return ""
    return active.scopes or (keys.run(active.task_run_id) if active.task_run_id else "")


def _forced(settlement: Settlement, active: Reservation | None) -> Settlement:
    """Return the settlement to repeat, without `correct`, which may refer to large objects."""
    return Settlement(
        settlement.hold_id,
        "force",
        settlement.cost_micro,
        settlement.event,
        settlement.account,
        settlement.group,
        scopes=settlement.scopes or _scopes(active),
    )

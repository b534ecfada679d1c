"""Answers kept for callers that repeat a call: a call with an idempotency key is made once.

A caller that was killed lost an answer that it paid for. If it sends the same body again with the
same `Idempotency-Key`, it gets that answer without a hold and without an event. Statuses follow
https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/: 409 while the first
call is under way, 422 for another body. In Redis the answer is encrypted with the caller's key;
only a digest of the key is stored.
"""

import asyncio
import hashlib
import hmac
import os
import time
from collections import deque

import msgspec
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from gateway import keys
from gateway.call import Call
from gateway.errors import Refusal, unavailable
from gateway.network.headers import REPLAYED, Headers
from gateway.network.redis_connection import Redis, RedisError, RedisUnavailable, Script
from gateway.resolver.credentials import Caller
from gateway.telemetry import metrics

logger = structlog.get_logger("gateway.kept_answers")

HEADER = b"idempotency-key"
SHORTEST_KEY, LONGEST_KEY = 16, 255  # bytes; shorter keys could be guessed
LARGEST_ANSWER = 256 * 1024
# Bytes that each process may keep at once. Undelivered events need Redis' memory more.
MOST_BYTES = 32 * 1024 * 1024
# A claim without a hold is valid for this long even if its process has no lease yet.
CLAIM_MS = 5_000
# A call that gets no hold gives its claim back within this time after `admission_seconds`.
GRACE_MS = 5_000
REMEMBERED_MS = 3_600_000  # how long it is known that a call was made, without its answer
NONCE_BYTES = 12
# Claims that are given back once Redis is back. Others end by themselves.
MOST_UNCONFIRMED = 10_000
RETRY_SECONDS = 0.1
# How long after its connection broke a claim can still reach Redis, when the network is back.
LATE_MS = 600_000

CLAIM = Script("claim")
DISCLAIM = Script("disclaim")


def key_of(call: Call) -> bytes:
    """Return the idempotency key of a call; empty if it has none or one of a wrong length."""
    key = call.headers.get(HEADER, b"")
    return key if SHORTEST_KEY <= len(key) <= LONGEST_KEY else b""


def step_id(call: Call) -> str | None:
    """Return the `step_id` that events of calls with the same idempotency key share."""
    key = key_of(call)
    return hashlib.sha256(key).hexdigest()[:32] if key else None


class KeptAnswer(msgspec.Struct, frozen=True):
    """An answer as the first caller got it."""

    status: int
    headers: Headers
    body: bytes


class AnswerKept(Exception):
    """The call was made before, and this is its answer."""

    def __init__(self, answer: KeptAnswer) -> None:
        self.answer = answer


class KeyInUse(Refusal):
    """A call with this key is under way, or the key was used for another request."""


class Claim:
    """The right to make the call with an idempotency key. Collects the answer as it passes."""

    def __init__(
        self, answers: "KeptAnswers", name: str, secret: bytes, call_id: str, fingerprint: str
    ) -> None:
        self._answers = answers
        self._name = name
        self._secret = secret
        self._call_id = call_id
        self._fingerprint = fingerprint
        self._chunks: list[bytes] = []
        self._size = 0
        self._kept = False

    def add(self, chunk: bytes) -> None:
        """Collect a part of the answer. An answer that is too long is not kept."""
        self._size += len(chunk)
        if self._size <= LARGEST_ANSWER:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()

    async def keep(self, status: int, headers: Headers) -> None:
        """Keep the whole answer if there is room. Must be called before the hold is settled."""
        if self._size > LARGEST_ANSWER:
            return
        answer = KeptAnswer(status, headers, b"".join(self._chunks))
        self._kept = await self._answers.keep(self._name, self._secret, self._fingerprint, answer)

    async def end(self, *, generated: bool) -> None:
        """Release the key if no answer was kept. `generated`: the provider may have made one."""
        if not self._kept:
            await self._answers.disclaim(self._name, self._call_id, generated=generated)


class KeptAnswers:
    """Keeps answers in Redis, where every process finds them."""

    def __init__(
        self, redis: Redis, owner: str, seconds: float, *, admission_seconds: float
    ) -> None:
        """`owner` is the process that owns the holds of these calls.

        Answers are kept for `seconds`; 0 keeps none. A call may take `admission_seconds` to get its
        hold, because Django may have to be asked.
        """
        self._redis = redis
        self._admission_ms = int(admission_seconds * 1000) + GRACE_MS
        self._owner = owner
        self._seconds = seconds
        self._sizes: deque[tuple[float, int]] = deque()
        self._bytes = 0
        # Claims to give back that Redis did not confirm: their entries, call ids, and `generated`.
        self._unconfirmed: deque[tuple[str, str, bool]] = deque(maxlen=MOST_UNCONFIRMED)
        self._retrying: asyncio.Task[None] | None = None

    async def knows(self, call: Call, caller: Caller) -> bool:
        """Return whether the call's idempotency key was used. Without Redis it counts as new."""
        secret = key_of(call)
        if not self._seconds or not secret:
            return False
        try:
            return bool(await self._redis.execute("EXISTS", _name(call, caller, secret)))
        except (RedisUnavailable, RedisError):
            return False

    async def claim(self, call: Call, caller: Caller, body: bytes) -> Claim | None:
        """Claim the call's idempotency key; return None if it has none.

        Raises `AnswerKept`, `KeyInUse`, or a 503 `Refusal` if Redis is down.
        """
        secret = key_of(call)
        if not self._seconds or not secret:
            return None
        name = _name(call, caller, secret)
        fingerprint = hashlib.sha256(call.api.encode() + b" " + body).hexdigest()
        try:
            status, sealed = await self._redis.run(
                CLAIM, [name, keys.OWNERS, keys.disclaimed(call.call_id)], call.call_id,
                self._owner, fingerprint, self._admission_ms, CLAIM_MS, REMEMBERED_MS,
            )  # fmt: skip
        except (RedisUnavailable, RedisError, asyncio.CancelledError) as error:
            # Redis may have made the claim anyway, or may still make it.
            self._disclaim_later(name, call.call_id, generated=False)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise unavailable(
                "Credits cannot be reserved at the moment. Please try again.", "store_unavailable"
            ) from None
        if status == b"under_way":
            raise KeyInUse(
                409,
                "call_under_way",
                "An earlier call with this idempotency key is still under way.",
                retry_after=1,
            )
        if status == b"other":
            raise KeyInUse(
                422,
                "idempotency_key_reused",
                "This idempotency key was used for another request.",
                retry=False,
            )
        if status == b"kept":
            raise AnswerKept(_opened(sealed, secret))
        if status == b"again":
            metrics.REPEATED_GENERATIONS.inc()
        return Claim(self, name, secret, call.call_id, fingerprint)

    async def keep(self, name: str, secret: bytes, fingerprint: str, answer: KeptAnswer) -> bool:
        """Keep an answer; return False if there is no room for it, or Redis is down.

        The fingerprint is written again, because Redis may have lost the claim meanwhile.
        """
        sealed = _sealed(answer, secret)
        if not self._has_room(len(sealed)):
            return False
        try:
            await asyncio.gather(
                self._redis.execute("HSET", name, "fingerprint", fingerprint, "answer", sealed),
                self._redis.execute("PEXPIRE", name, int(self._seconds * 1000)),
            )
        except (RedisUnavailable, RedisError):
            metrics.REDIS_FAILURES.labels("keep_answer").inc()
            return False
        return True

    async def disclaim(self, name: str, call_id: str, *, generated: bool) -> None:
        """Give a claim back. If Redis is down, that is done in the background once it is back."""
        try:
            await self._disclaim(name, call_id, generated=generated, late_ms=0)
        except (RedisUnavailable, RedisError):
            metrics.REDIS_FAILURES.labels("keep_answer").inc()
            self._disclaim_later(name, call_id, generated=generated)

    async def _disclaim(self, name: str, call_id: str, *, generated: bool, late_ms: int) -> None:
        names = [name, keys.disclaimed(call_id)]
        await self._redis.run(DISCLAIM, names, call_id, int(generated), late_ms)

    def _disclaim_later(self, name: str, call_id: str, *, generated: bool) -> None:
        self._unconfirmed.append((name, call_id, generated))
        if self._retrying is None or self._retrying.done():
            self._retrying = asyncio.create_task(self._disclaim_unconfirmed())

    async def _disclaim_unconfirmed(self) -> None:
        while self._unconfirmed:
            claim = name, call_id, generated = self._unconfirmed.popleft()
            try:
                await self._disclaim(name, call_id, generated=generated, late_ms=LATE_MS)
            except RedisUnavailable:
                self._unconfirmed.appendleft(claim)
                await asyncio.sleep(RETRY_SECONDS)
            except RedisError as error:
                # It ends by itself.
                logger.error("a claim could not be given back", call_id=call_id, error=str(error))

    def _has_room(self, size: int) -> bool:
        now = time.monotonic()
        while self._sizes and self._sizes[0][0] <= now:
            self._bytes -= self._sizes.popleft()[1]
        if self._bytes + size > MOST_BYTES:
            return False
        self._sizes.append((now + self._seconds, size))
        self._bytes += size
        return True


def replayed(answer: KeptAnswer) -> Headers:
    """Return the headers of a replayed answer."""
    return [*answer.headers, (REPLAYED, b"true")]


def _name(call: Call, caller: Caller, secret: bytes) -> str:
    scope = f"{call.product} {caller.project_id} ".encode()
    return keys.kept_answer(hashlib.sha256(scope + secret).hexdigest())


def _cipher(secret: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(hmac.digest(secret, b"tollgate kept answer", "sha256"))


def _sealed(answer: KeptAnswer, secret: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _cipher(secret).encrypt(nonce, msgspec.msgpack.encode(answer), None)


def _opened(sealed: bytes, secret: bytes) -> KeptAnswer:
    nonce, text = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        plain = _cipher(secret).decrypt(nonce, text, None)
    except InvalidTag:
        raise unavailable("The answer kept for this call cannot be read.", "internal") from None
    return msgspec.msgpack.decode(plain, type=KeptAnswer)

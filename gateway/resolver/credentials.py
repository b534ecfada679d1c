"""Who is calling: looking a credential up in Django, and choosing the project that pays."""

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from urllib.parse import quote

import structlog

from gateway.errors import Refusal, bad_request, forbidden, unavailable
from gateway.network.headers import Headers
from gateway.products import Product
from gateway.resolver.tollgate_api import (
    TokenAnswer,
    TollgateApi,
    TollgateUnavailable,
    TollgateUnusable,
)
from gateway.telemetry import metrics

logger = structlog.get_logger("gateway.resolver.credentials")

SCOPE = "llm_gateway:read"
FRESH_SECONDS = 60.0
REFRESH_SECONDS = 30.0
UNKNOWN_SECONDS = 5.0
RETRY_SECONDS = 0.25
MAX_KNOWN = 20_000
MAX_STRANGERS = 1_000
MAX_QUESTIONS = 64  # at once, about unknown tokens


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, and the one project that it is checked against, held for and billed to."""

    credential_sha256: str
    organization_id: str
    project_id: int
    task_run_id: str | None
    distinct_id: str
    user: str  # `distinct_id`, quoted for Redis keys
    accepted_micro: int | None = None  # the accepted number


def credential_of(headers: Headers) -> str:
    """Return the credential of a request. Raises a 401 `Refusal` if there is no valid one.

    `Authorization: Bearer` comes first; `x-api-key` is read only if there is no `Authorization`
    header or its token is empty. Another scheme, or a header sent twice, is refused, never skipped.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (b"authorization", b"x-api-key"):
            if name in found:
                raise _unauthorized("A credential header was sent twice.")
            found[name] = value.strip()
    authorization = found.get(b"authorization")
    if authorization:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise _unauthorized("The Authorization header must be 'Bearer <token>'.")
        if token.strip():
            return _text(token.strip())
    token = found.get(b"x-api-key", b"")
    if not token:
        raise _unauthorized("A token is needed, in Authorization: Bearer or in x-api-key.")
    return _text(token)


def _text(token: bytes) -> str:
    try:
        text = token.decode("ascii")
    except UnicodeDecodeError:
        raise _unauthorized("The token is not valid.") from None
    if len(text) > 512 or not text.isprintable() or " " in text or "," in text:
        raise _unauthorized("The token is not valid.")
    return text


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, "unauthenticated", message, retry=False)


@dataclass(slots=True)
class KnownCredential:
    """What Django said about a credential, and its callers by product and project header.

    `at` is when Django was asked, on the monotonic clock.
    """

    digest: str
    answer: TokenAnswer
    at: float
    callers: dict[tuple[str, int | None], Caller] = field(default_factory=dict)

    def caller(self, product: Product, project_header: bytes | None) -> Caller:
        """Return the caller. Raises `Refusal` as `caller_of` does."""
        # Parsed first, because a number has many spellings and each would be a new key.
        project = None if project_header is None else _number(project_header)
        key = (product.name, project)
        caller = self.callers.get(key)
        if caller is None:
            caller = caller_of(self.digest, self.answer, product, project)
            self.callers[key] = caller
        return caller


class Credentials:
    """Looks credentials up in Django and caches the answers by digest."""

    def __init__(self, api: TollgateApi, *, open_window: float) -> None:
        self._api = api
        self._open_window = open_window
        self._known: dict[str, KnownCredential] = {}
        self._strangers: dict[str, KnownCredential] = {}  # tokens that are not active
        self._questions = asyncio.Semaphore(MAX_QUESTIONS)
        self._asking: dict[str, asyncio.Task[KnownCredential]] = {}
        self._revoked: dict[str, tuple[int, float]] = {}
        self._failed_at = float("-inf")
        self._forgotten_at = float("-inf")  # when the last revocations could not be learned
        self.group = ""
        self.confirmed_at = float("-inf")  # when Django was last known to answer (monotonic)

    async def identify(self, token: str) -> KnownCredential:
        """Return the credential of a token. Raises a 401 or 503 `Refusal`."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        known = self._known.get(digest) or self._strangers.get(digest)
        if known is None:
            known = await self._ask(digest, token)
        else:
            age = time.monotonic() - known.at
            if not known.answer.active:
                if age > UNKNOWN_SECONDS:
                    known = await self._ask(digest, token)
            elif age > FRESH_SECONDS:
                known = await self._ask(digest, token, fallback=known)
            elif age > REFRESH_SECONDS:
                self._refresh(digest, token)
        answer = known.answer
        if not answer.active or (answer.exp is not None and answer.exp <= time.time()):
            raise _unauthorized("The token is unknown, revoked or expired.")
        return known

    def revoke(self, digest: str, revoked_at_ms: int = 0) -> None:
        """Forget a credential, and ignore answers to questions asked before now.

        `revoked_at_ms` identifies the revocation, so that learning of it again changes nothing.
        """
        if revoked_at_ms and self._revoked.get(digest, (0, 0.0))[0] == revoked_at_ms:
            return
        self._known.pop(digest, None)
        self._strangers.pop(digest, None)
        self._revoked[digest] = (revoked_at_ms, time.monotonic())
        while len(self._revoked) > MAX_KNOWN:
            self._revoked.pop(next(iter(self._revoked)))

    def forget_all(self) -> None:
        """Forget every credential, because the change feed cannot say which were revoked.

        Answers to questions asked before now are ignored, too: Django is asked once more.
        """
        self._known.clear()
        self._forgotten_at = time.monotonic()

    def _refresh(self, digest: str, token: str) -> None:
        if digest not in self._asking and time.monotonic() - self._failed_at > RETRY_SECONDS:
            self._start(digest, token)

    def _start(self, digest: str, token: str) -> "asyncio.Task[KnownCredential]":
        task = asyncio.create_task(self._introspect(digest, token))
        self._asking[digest] = task
        task.add_done_callback(lambda _: self._asking.pop(digest, None))
        # Those who wait get the exception. If nobody waits, asyncio must not log it.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _ask(
        self, digest: str, token: str, fallback: KnownCredential | None = None
    ) -> KnownCredential:
        """Ask Django once for all who wait; fall back to the last answer while that is allowed."""
        task = self._asking.get(digest)
        if task is None:
            if time.monotonic() - self._failed_at < RETRY_SECONDS:
                return self._fall_back(fallback)
            task = self._start(digest, token)
        try:
            return await asyncio.shield(task)
        except TollgateUnavailable:
            return self._fall_back(fallback)
        except TollgateUnusable:
            raise unavailable(
                "The token cannot be checked at the moment.", "authentication_unavailable"
            ) from None

    def _fall_back(self, known: KnownCredential | None) -> KnownCredential:
        since = time.monotonic() - self.confirmed_at
        if known is not None and known.answer.active and since <= self._open_window:
            metrics.OPEN_BECAUSE_UNKNOWN.inc()
            return known
        raise unavailable(
            "The token cannot be checked at the moment.", "authentication_unavailable"
        )

    async def _introspect(self, digest: str, token: str) -> KnownCredential:
        try:
            asked_at, answer = await self._question(digest, token)
            if asked_at <= self._forgotten_at:
                asked_at, answer = await self._question(digest, token)
            if asked_at <= self._forgotten_at:
                raise TollgateUnavailable("the change feed was reset twice")
        except TollgateUnavailable:
            self._failed_at = time.monotonic()
            metrics.RESOLVER_FAILURES.labels("introspection", "unavailable").inc()
            raise
        except TollgateUnusable as error:
            metrics.RESOLVER_FAILURES.labels("introspection", "unusable").inc()
            logger.error("introspection is not usable", error=str(error))
            raise
        if self._revoked.get(digest, (0, float("-inf")))[1] >= asked_at:
            return KnownCredential(digest, TokenAnswer(active=False), asked_at)
        # Made-up tokens must not push known ones out.
        kept, other = self._strangers, self._known
        most = MAX_STRANGERS
        if answer.active:
            kept, other, most = self._known, self._strangers, MAX_KNOWN
        other.pop(digest, None)
        while len(kept) >= most:
            kept.pop(next(iter(kept)))
        known = kept[digest] = KnownCredential(digest, answer, asked_at)
        return known

    async def _question(self, digest: str, token: str) -> tuple[float, TokenAnswer]:
        """Return when Django was asked, and its answer."""
        asked_at = time.monotonic()
        # Refreshing tokens in use does not wait behind questions about unknown tokens.
        if digest in self._known:
            return asked_at, await self._api.introspect(token, self.group)
        async with self._questions:
            return asked_at, await self._api.introspect(token, self.group)


def caller_of(digest: str, answer: TokenAnswer, product: Product, project: int | None) -> Caller:
    """Return the caller for a product and the project that was named, if any.

    Raises `Refusal` if the credential may not call the product or project (403), or if it covers
    several projects and none was named (400).
    """
    if SCOPE not in answer.scope.split():
        raise forbidden(f"The token lacks the scope {SCOPE}.", "missing_scope")
    if answer.organization_id is None:
        raise forbidden("The token does not belong to an organization.")
    if answer.token_kind not in product.token_kinds or product.name not in answer.products:
        raise forbidden(
            f"This kind of token may not call the product {product.name}.", "product_not_allowed"
        )
    if product.needs_unmetered_gateway and answer.unmetered_gateway is False:
        raise forbidden(
            f"The product {product.name} is not switched on for this organization.",
            "product_not_allowed",
        )
    project_id = _project_of(answer, project)
    distinct_id = _distinct_id(answer, project_id)
    return Caller(
        credential_sha256=digest,
        organization_id=answer.organization_id,
        project_id=project_id,
        task_run_id=answer.task_run_id,
        distinct_id=distinct_id,
        user=quote(distinct_id, safe=":"),
        accepted_micro=answer.accepted_micro,
    )


def _number(header: bytes) -> int:
    try:
        return int(header)
    except ValueError:
        raise bad_request("x-project-id must be a number.", "project_unknown") from None


def _project_of(answer: TokenAnswer, named: int | None) -> int:
    covered = set(answer.project_ids)
    if answer.project_id is not None:
        covered.add(answer.project_id)
    if named is not None:
        if named not in covered:
            raise forbidden("The token does not cover this project.", "project_not_allowed")
        return named
    if answer.project_id is not None:
        return answer.project_id
    if len(covered) == 1:
        return covered.pop()
    if not covered:
        raise forbidden("The token covers no project.", "project_not_allowed")
    raise bad_request(
        "The token covers several projects: name one in x-project-id.", "project_needed"
    )


def _distinct_id(answer: TokenAnswer, project_id: int) -> str:
    if answer.distinct_id:
        return answer.distinct_id
    if answer.sub is not None:
        return str(answer.sub)
    if answer.task_run_id is not None:
        return f"task-run-{answer.task_run_id}"
    return f"project-{project_id}"

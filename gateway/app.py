"""The application: wires the parts together, routes requests, and turns errors into answers."""

import asyncio
import gc
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from structlog.types import Processor

from gateway import apis, products
from gateway.admission import Gate
from gateway.background import Background
from gateway.booking import Settler
from gateway.call import Call, new_call_id
from gateway.errors import Refusal, bad_request, unavailable
from gateway.kept_answers import KeptAnswers
from gateway.money.holds import Holds
from gateway.money.outbox import Outbox
from gateway.money.posthog import PostHogOutbox
from gateway.money.price_list import is_regional
from gateway.money.prices import Prices
from gateway.money.reaper import Reaper
from gateway.network.incoming import BodyBudget, CallerLeft, Incoming
from gateway.network.redis_connection import Redis
from gateway.proxy import Proxy
from gateway.refusals import denial_status, wrong_paths
from gateway.refusals.throttles import UnpaidRequests
from gateway.resolver.change_feed import ChangeFeed
from gateway.resolver.credentials import Credentials
from gateway.resolver.quota import QuotaResolver
from gateway.resolver.tollgate_api import TollgateApi
from gateway.resolver.usage_report import usage_report
from gateway.settings import MICRO, Settings, from_environment
from gateway.telemetry import metrics
from gateway.telemetry.logs import configure, log_request
from gateway.upstream import Upstreams

if TYPE_CHECKING:
    from gateway.tracing.opentelemetry import Tracing

logger = structlog.get_logger("gateway.request")
READY_SECONDS = 5.0
_UNLOGGED = frozenset({"/", "/_health", "/_ready", "/metrics"})
_PLAIN = [(b"content-type", b"text/plain; charset=utf-8")]
_JSON = [(b"content-type", b"application/json")]
_METERED = {f"/{name}{api.path}": (name, api) for name in products.NAMES for api in apis.METERED}
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Gateway:
    """One process of the gateway."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.body_budget = BodyBudget(settings.body_budget)
        self._under_way = 0
        self._tracing = _tracing() if settings.traces else None

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Start and stop with the server. Only ASGI's lifespan scope is used here.

        https://asgi.readthedocs.io/en/latest/specs/lifespan.html
        """
        assert scope["type"] == "lifespan"
        await receive()
        self._start()
        _tune_garbage_collection()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._background.stop()
        self._api.close()
        self._upstreams.close()
        if self._posthog is not None:
            self._posthog.close()
        self._redis.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        await send({"type": "lifespan.shutdown.complete"})

    def _start(self) -> None:
        settings = self._settings
        self._redis = Redis(settings.redis_url)
        self._api = TollgateApi(settings)
        self._upstreams = Upstreams(settings)
        known = Credentials(self._api, open_window=settings.open_window)
        resolver = QuotaResolver(self._redis, self._api)
        prices = Prices(
            settings.price_overrides,
            openai_in_a_region=is_regional(settings.upstreams["openai"].url),
        )
        cap = settings.run_cap_credits
        copies = settings.posthog.most if settings.posthog else 0
        holds = Holds(
            self._redis,
            lease=settings.lease,
            open_window=settings.open_window,
            run_cap_micro=None if cap is None else int(cap * MICRO),
            requests_per_minute=settings.requests_per_minute,
            copies=copies,
        )
        self._posthog = (
            PostHogOutbox(self._redis, settings.posthog, settings.egress)
            if settings.posthog
            else None
        )
        gate = Gate(settings, prices, resolver, holds)
        settler = Settler(holds, prices)
        unpaid = UnpaidRequests(self._redis, settings.requests_per_minute)
        answers = KeptAnswers(
            self._redis,
            holds.owner,
            settings.answers_kept,
            admission_seconds=settings.request_timeout,
        )
        self._proxy = Proxy(settings, known, gate, settler, self._upstreams, unpaid, answers)
        self._background = Background(
            settings,
            self._redis,
            known,
            resolver,
            holds,
            settler,
            ChangeFeed(self._redis, self._api, resolver),
            Outbox(self._redis, self._api, resolver),
            Reaper(self._redis, copies),
            self._posthog,
        )
        self._resolver = resolver
        metrics.set_regularly(metrics.IN_FLIGHT, lambda: self._under_way)
        metrics.set_regularly(metrics.BODY_BYTES, lambda: self.body_budget.kept)
        self._background.start()

    async def serve(self, request: Incoming) -> None:
        """Answer one request."""
        path, raw_headers = request.path, request.headers
        headers = dict(raw_headers)
        call = Call(request, raw_headers, headers, new_call_id(), time.perf_counter())
        if self._tracing is not None and path not in _UNLOGGED:
            call.trace = self._tracing.begin(request.method, path, headers)
        self._under_way += 1
        try:
            metered = _METERED.get(path)
            if metered is not None and request.method == "POST":
                await self._proxy.handle(call, *metered)
            else:
                await self._route(call, path, request.method)
        except Refusal as refusal:
            self._refuse(call, refusal)
        except CallerLeft:
            call.reason = "caller_left"
        except Exception:
            logger.exception("a call failed within the gateway", call_id=call.call_id)
            if not call.started:
                self._refuse(
                    call,
                    unavailable("The gateway failed. Please try again.", "internal", 1),
                )
        finally:
            self._under_way -= 1
            call.trace.end(call)
        if path not in _UNLOGGED:
            metrics.child(metrics.REQUESTS, call.product, call.api, call.status).inc()
            log_request(
                call_id=call.call_id,
                product=call.product,
                api=call.api,
                status=call.status,
                reason=call.reason,
                seconds=round(time.perf_counter() - call.began, 4),
            )

    def _refuse(self, call: Call, refusal: Refusal) -> None:
        call.reason = refusal.reason
        metrics.REFUSALS.labels(call.product, refusal.reason).inc()
        dialect = refusal.dialect or apis.dialect_of(call.request.path, call.headers)
        if refusal.denial:
            chosen = self._settings.denial_status
            refusal = denial_status.fit(refusal, dialect, call.headers, chosen)
        call.respond(*refusal.response(dialect, call.call_id))

    async def _route(self, call: Call, path: str, method: str) -> None:
        match path.split("/"):
            case ["", ""]:
                call.respond(200, _PLAIN, b"Tollgate gateway\n")
            case ["", "_health"]:
                call.respond(200, _PLAIN, b"ok\n")
            case ["", "_ready"]:
                self._ready(call)
            case ["", "metrics"]:
                self._metrics(call)
            case ["", "v1", "usage", name] if name:
                if method not in ("GET", "HEAD"):
                    raise wrong_paths.method_not_allowed("GET, HEAD", path)
                await self._usage(call, name)
            case ["", name, *rest]:
                if wrong_paths.is_misplaced(path) or (products.find(name) is None and not rest):
                    raise wrong_paths.not_found(path)
                below = "/" + "/".join(rest)
                api = apis.find(below, call.headers)
                if api is None:
                    await self._proxy.identify(call, name)
                    raise wrong_paths.not_found(path, apis.instead_of(below))
                if method != api.method:
                    if b"upgrade" in call.headers:  # Codex falls back to HTTP only on this status
                        message = "WebSockets are not supported here."
                        upgrade = [(b"upgrade", b"HTTP/1.1")]
                        raise Refusal(426, "no_websockets", message, retry=False, headers=upgrade)
                    raise wrong_paths.method_not_allowed(api.method, path)
                await self._proxy.handle(call, name, api)
            case _:
                raise bad_request("The path must begin with a slash.")

    def _ready(self, call: Call) -> None:
        now = time.monotonic()
        missing = []
        if now - self._background.beat_at > READY_SECONDS:
            missing.append("redis")
        if now - self._background.confirmed_at > self._settings.open_window:
            missing.append("tollgate")
        status = 503 if missing else 200
        call.respond(status, _JSON, msgspec.json.encode({"ready": not missing, "missing": missing}))

    def _metrics(self, call: Call) -> None:
        given = call.headers.get(b"authorization", b"")
        allowed = [f"Bearer {token}".encode() for token in self._settings.metrics_tokens]
        if not any(hmac.compare_digest(given, token) for token in allowed):
            raise Refusal(401, "unauthenticated", "The metrics token is needed.", retry=False)
        body, content_type = metrics.exposition()
        call.respond(200, [(b"content-type", content_type)], body)

    async def _usage(self, call: Call, name: str) -> None:
        product, caller = await self._proxy.identify(call, name)
        call.api = "/v1/usage"
        await self._proxy.count_unpaid(caller)
        report = await usage_report(self._redis, self._resolver, self._settings, product, caller)
        call.respond(200, _JSON, msgspec.json.encode(report))


def _tracing() -> "Tracing":
    """Return the tracing of calls. Its packages are imported only if tracing is configured."""
    from gateway.tracing.opentelemetry import Tracing

    return Tracing()


def _error_reports(settings: Settings) -> Processor:
    """Return what reports errors. Its packages are imported only if reports are configured."""
    from gateway.telemetry.error_reports import ErrorReports

    return ErrorReports(settings.sentry_dsn, settings.sentry_environment)


def _tune_garbage_collection() -> None:
    """Exempt what was loaded at startup, and collect less often: calls create no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def create() -> Gateway:
    """Return the application as the environment configures it. Each server process calls this."""
    settings = from_environment()
    configure(_error_reports(settings) if settings.sentry_dsn else None)
    return Gateway(settings)

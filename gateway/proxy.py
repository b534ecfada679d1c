"""The story of one call: who, may they, forward, pass the answer back, settle."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import structlog

from gateway import credentials, metrics, products, requests, throttles
from gateway.admission import Admission, Gate
from gateway.apis import Api
from gateway.credentials import Caller, Credentials
from gateway.errors import Dialect, Headers, Refusal, bad_request
from gateway.holds import Holds, Settlement
from gateway.metering import BYTES_PER_TOKEN, Meter, meter_for
from gateway.prices import Prices, UnknownPrice, Usage
from gateway.products import Product
from gateway.settings import MICRO, Settings
from gateway.upstream import (
    Answer,
    UpstreamFailed,
    Upstreams,
    no_answer,
    no_answer_in_time,
    response_headers,
)
from gateway.usage_events import Outcome, correction, event, to_micro

logger = structlog.get_logger("gateway.request")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class CallerLeft(Exception):
    """The caller is gone; nobody reads an answer."""


@dataclass(slots=True)
class Call:
    """One request as it goes through the gateway."""

    path: str
    query: bytes
    raw_headers: Headers
    headers: dict[bytes, bytes]
    receive: Receive
    send: Send
    dialect: Dialect
    request_id: str
    product: str = ""
    api: str = ""
    status: int = 0
    reason: str | None = None
    started: bool = False

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer of our own."""
        self.status, self.started = status, True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class Departure:
    """Listens for the caller's leaving, which an ASGI server tells only to those who ask."""

    def __init__(self, receive: Receive, drain: float | None) -> None:
        self.noticed = False
        self._receive = receive
        self._drain = drain  # seconds to go on reading the answer; None: stop at once
        self._working = asyncio.current_task()
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.noticed = True
        if self._drain is not None:
            await asyncio.sleep(self._drain)
        if self._working is not None:
            self._working.cancel()

    def forget(self) -> None:
        """Stop listening."""
        self._listening.cancel()

    def caused(self) -> bool:
        """Tell whether a cancellation came from here; then it is taken back."""
        if self.noticed and self._working is not None:
            self._working.uncancel()
            return True
        return False


class Proxy:
    """Handles the calls of one process."""

    def __init__(
        self,
        settings: Settings,
        known: Credentials,
        gate: Gate,
        holds: Holds,
        prices: Prices,
        upstreams: Upstreams,
    ) -> None:
        self._settings = settings
        self._credentials = known
        self._gate = gate
        self._holds = holds
        self._prices = prices
        self._upstreams = upstreams
        self._concurrency = throttles.Concurrency(settings.max_concurrent_per_credential)
        self.group = ""

    async def identify(self, call: Call, name: str) -> tuple[Product, Caller]:
        """Return product and caller. Raises `Refusal`."""
        product = products.find(name)
        if product is None:
            raise bad_request(
                f"Unknown product {name[:50]!r}. Known: {', '.join(products.KNOWN_NAMES)}.",
                "product_unknown",
            )
        call.product = product.name
        token = credentials.credential_of(call.headers)
        digest, answer = await self._credentials.identify(token)
        return product, credentials.caller_of(
            digest, answer, product, call.headers.get(b"x-project-id")
        )

    async def handle(self, call: Call, name: str, api: Api) -> None:
        """Carry out one call. Raises `Refusal` as long as nothing was sent."""
        began = time.perf_counter()
        call.api = api.path
        product, caller = await self.identify(call, name)
        body = await self._read_body(call) if api.method == "POST" else b""
        self._concurrency.enter(caller.credential_sha256)
        try:
            if api.meter is None:
                await _Exchange(self, call, api, body, None, None, began).run()
                return
            request = requests.read(api, body, call.headers.get(b"anthropic-beta", b""))
            throttles.check_model(product, request.model, self._settings.small_models)
            admission = await self._gate.admit(product, caller, request, _trace_id(call))
            meter = meter_for(
                api.meter,
                stream=request.stream,
                hide_usage=request.stream and api.meter == "chat" and not request.usage_asked,
            )
            await _Exchange(self, call, api, admission.body, admission, meter, began).run()
        finally:
            self._concurrency.leave(caller.credential_sha256)

    async def _read_body(self, call: Call) -> bytes:
        """Read the whole body, within limits of size and time."""
        most = self._settings.max_body_bytes
        too_large = Refusal(
            413, "body_too_large", f"The request body exceeds {most} bytes.", retry=False
        )
        length = call.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise too_large
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.request_timeout):
                while True:
                    message = await call.receive()
                    if message["type"] == "http.disconnect":
                        raise CallerLeft
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > most:
                        raise too_large
                    chunks.append(chunk)
                    if not message.get("more_body"):
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError:
            raise Refusal(408, "request_timeout", "The request body took too long.") from None

    async def settle(self, admission: Admission, outcome: Outcome) -> None:
        """Book a call that ended: once, durably, with its event."""
        record, account, group = admission.record, admission.account, self.group
        cost = to_micro(outcome.cost, admission.credits_per_usd)
        if record.billable:
            metrics.SETTLED.labels(record.product).inc(cost / MICRO)
            if cost > admission.bound_micro:
                metrics.OVERRUN.inc((cost - admission.bound_micro) / MICRO)
                logger.error("cost exceeds its bound", hold_id=record.uuid, model=record.model)
        if outcome.estimated:
            metrics.ESTIMATED.labels("call_broken_off").inc()

        def correct() -> Settlement:
            correction_id, debit, data = correction(
                record,
                outcome,
                account=account,
                group=group,
                debited_micro=cost,
                bound_micro=admission.bound_micro,
            )
            return Settlement(correction_id, "force", debit, data, account, group)

        data = event(record, outcome, account=account, group=group, debited_micro=cost)
        mode: Literal["hold", "force"] = "hold" if record.billable else "force"
        await self._holds.settle(Settlement(record.uuid, mode, cost, data, account, group, correct))


class _Exchange:
    """One call at the provider: request out, answer back, settlement in between."""

    def __init__(
        self,
        proxy: Proxy,
        call: Call,
        api: Api,
        body: bytes,
        admission: Admission | None,
        meter: Meter | None,
        began: float,
    ) -> None:
        self._proxy = proxy
        self._settings = proxy._settings
        self._call = call
        self._api = api
        self._body = body
        self._admission = admission
        self._meter = meter
        self._began = began
        self._waited = 0.0  # for the provider
        self._status = 0
        self._timed_out = False
        self._failed = False
        self._settled = False

    async def run(self) -> None:
        """Forward and pass back. Raises `Refusal` when the provider gave no answer."""
        stream = self._admission is not None and self._admission.record.stream
        departure = Departure(self._call.receive, None if stream else self._settings.drain_timeout)
        try:
            await self._forward(departure)
        except asyncio.CancelledError:
            self._failed = True
            if not departure.caused():
                raise
            self._timed_out = not self._status
            raise CallerLeft from None
        except UpstreamFailed:
            self._failed = True
            if not self._call.started:
                raise no_answer(self._api.provider) from None
        except TimeoutError:
            self._failed = self._timed_out = True
            if not self._call.started:
                raise no_answer_in_time(self._api.provider) from None
        finally:
            departure.forget()
            if not self._settled:
                await asyncio.shield(self._settle())
            metrics.ADDED_SECONDS.observe(time.perf_counter() - self._began - self._waited)

    async def _forward(self, departure: Departure) -> None:
        loop, clock = asyncio.get_running_loop(), time.perf_counter
        call, meter = self._call, self._meter
        answer = self._proxy._upstreams.call(self._api, call.query, call.raw_headers, self._body)
        async with asyncio.timeout(self._settings.first_byte_timeout) as patience:
            asked = clock()
            async with answer:
                self._waited += clock() - asked
                self._status = answer.status
                streamed = await self._send_head(answer)
                held_back = b""
                while True:
                    patience.reschedule(loop.time() + self._settings.idle_timeout)
                    asked = clock()
                    chunk = await answer.read()
                    self._waited += clock() - asked
                    if chunk is None:
                        break
                    if meter is not None:
                        chunk = meter.feed(chunk)
                    if streamed:
                        if meter is not None and meter.finished:
                            await self._settle()
                        if chunk:
                            await self._send_body(chunk, departure)
                    else:
                        # The last bytes wait for the settlement.
                        if held_back:
                            await self._send_body(held_back, departure)
                        held_back = chunk
                if meter is not None:
                    held_back += meter.end()
                await self._settle()
                if not departure.noticed:
                    await call.send({"type": "http.response.body", "body": held_back})

    async def _send_head(self, answer: Answer) -> bool:
        """Pass status and headers on; tell whether the answer is a stream of events."""
        call = self._call
        streamed = any(
            name == b"content-type" and value.startswith(b"text/event-stream")
            for name, value in answer.headers
        )
        if self._admission is not None and (
            answer.status >= 400 or streamed != self._admission.record.stream
        ):
            self._meter = meter_for(self._api.meter or "", stream=streamed, hide_usage=False)
        filtered = self._meter is not None and self._meter.hides_usage
        headers = response_headers(answer.headers, length_changes=filtered)
        call.status, call.started = answer.status, True
        await call.send(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )
        return streamed

    async def _send_body(self, chunk: bytes, departure: Departure) -> None:
        if not departure.noticed:
            await self._call.send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def _settle(self) -> None:
        """Book the call, once."""
        if self._settled or self._admission is None or self._meter is None:
            return
        self._settled = True
        await self._proxy.settle(self._admission, self._outcome())

    def _outcome(self) -> Outcome:
        assert self._admission is not None
        assert self._meter is not None
        admission, meter = self._admission, self._meter
        usage = meter.usage()
        complete = meter.finished and not self._failed
        estimated = False
        bounded = False
        if usage is None or not complete:
            if self._status >= 400 or (not self._status and not self._timed_out):
                usage = usage or Usage()  # an error, for which the provider charges what it says
            elif not self._status:
                usage, estimated, bounded = Usage(), True, True  # nobody saw what it did
            elif not (usage is not None and meter.finished):
                estimated = True
                usage = _estimate(usage, admission, meter)
        rates = admission.rates
        if rates is None:
            cost, version = Decimal(0), "unknown"
        elif bounded:
            cost, version = admission.bound, rates.version
        else:
            if usage.service_tier is not None:
                try:
                    rates = self._proxy._prices.rates(
                        self._api.provider, admission.record.model, usage.service_tier
                    )
                except UnknownPrice:
                    rates = admission.rates
            assert rates is not None
            cost, version = rates.cost(usage), rates.version
            if estimated and admission.record.billable:
                cost = min(cost, admission.bound)
        return Outcome(
            cost=cost,
            usage=usage,
            status=self._status,
            is_error=self._failed or meter.failed or not meter.finished or self._status >= 400,
            estimated=estimated,
            latency=time.perf_counter() - self._began,
            price_version=version,
        )


def _estimate(usage: Usage | None, admission: Admission, meter: Meter) -> Usage:
    """Estimate what the provider will charge for an answer that was broken off."""
    output = meter.output_estimate()
    if usage is None:
        return Usage(input=len(admission.body) // BYTES_PER_TOKEN, output=output)
    return Usage(
        input=usage.input,
        cache_read=usage.cache_read,
        cache_write_5m=usage.cache_write_5m,
        cache_write_1h=usage.cache_write_1h,
        output=max(usage.output, output),
        web_searches=usage.web_searches,
        file_searches=usage.file_searches,
        service_tier=usage.service_tier,
    )


def _trace_id(call: Call) -> str:
    """Return the caller's trace (https://www.w3.org/TR/trace-context/), else the request's id."""
    parts = call.headers.get(b"traceparent", b"").split(b"-")
    if len(parts) == 4 and len(parts[1]) == 32 and parts[1].isalnum():
        return parts[1].decode()
    return call.request_id


def new_request_id() -> str:
    """Return an id for a request that carries none."""
    return f"req_{uuid.uuid4().hex}"

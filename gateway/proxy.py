"""The story of one call: identify the caller, admit, forward, pass the answer back, settle."""

import asyncio

from gateway import products
from gateway.admission import Admission, Gate
from gateway.apis import Api
from gateway.body import requests
from gateway.body.media_type import check as check_media_type
from gateway.body.media_type import refuse_compressed
from gateway.booking import Settler
from gateway.call import Call
from gateway.errors import Refusal, bad_request, unavailable
from gateway.exchange import Exchange
from gateway.kept_answers import AnswerKept, Claim, KeptAnswers, KeyInUse, replayed
from gateway.metering import Meter, meter_for
from gateway.network.incoming import BodyTooLarge, TooManyBodies
from gateway.network.interruptions import Watch, Watches
from gateway.products import Product
from gateway.refusals import denial_status, throttles
from gateway.resolver import credentials
from gateway.resolver.credentials import Caller, Credentials
from gateway.settings import Settings
from gateway.telemetry import metrics
from gateway.upstream import Upstreams


class Proxy:
    """Handles the calls of one process."""

    def __init__(
        self,
        settings: Settings,
        known: Credentials,
        gate: Gate,
        settler: Settler,
        upstreams: Upstreams,
        unpaid: throttles.UnpaidRequests,
        answers: KeptAnswers,
    ) -> None:
        self._settings = settings
        self._credentials = known
        self._gate = gate
        self._settler = settler
        self._upstreams = upstreams
        self._unpaid = unpaid
        self._answers = answers
        self._watches = Watches()
        self._concurrency = throttles.Concurrency(
            settings.max_concurrent_per_credential,
            max(settings.max_body_bytes, settings.body_budget // 2),
        )

    async def identify(self, call: Call, name: str) -> tuple[Product, Caller]:
        """Return the product and the caller. Raises `Refusal`."""
        product = products.find(name)
        if product is None:
            raise bad_request(
                f"Unknown product {name[:50]!r}. Known: {', '.join(products.KNOWN_NAMES)}.",
                "product_unknown",
            )
        call.product = product.name
        known = await self._credentials.identify(credentials.credential_of(call.raw_headers))
        return product, known.caller(product, call.headers.get(b"x-project-id"))

    async def count_unpaid(self, caller: Caller) -> None:
        """Count a request that reserves no credits. Raises a 429 `Refusal` after too many."""
        await self._unpaid.count(caller.credential_sha256)

    async def handle(self, call: Call, name: str, api: Api) -> None:
        """Carry out one call. Raises `CallerLeft`, or `Refusal` while no answer has been sent."""
        call.api = api.label
        product, caller = await self.identify(call, name)
        if denial_status.HEADER in call.headers:
            denial_status.check_header(call.raw_headers)
        call.trace.identified(caller.organization_id, caller.project_id, caller.task_run_id)
        call.request.keep_within(self._concurrency.enter(caller.credential_sha256))
        watch = self._watches.begin(self._settings.request_timeout)
        try:
            exchange, model, output_tokens = await self._prepare(call, product, caller, api, watch)
            with call.trace.upstream(call, api, model, output_tokens):
                await exchange.run(watch)
        except AnswerKept as found:
            call.reason = "replayed"
            metrics.REPLAYED_ANSWERS.inc()
            call.respond(found.answer.status, replayed(found.answer), found.answer.body)
        except asyncio.CancelledError:
            if not watch.claim():
                raise  # the server is stopping
            raise Refusal(408, "request_timeout", "The request took too long.") from None
        finally:
            watch.close()
            self._concurrency.leave(caller.credential_sha256)

    async def _prepare(
        self, call: Call, product: Product, caller: Caller, api: Api, watch: Watch
    ) -> tuple[Exchange, str | None, int | None]:
        """Return the exchange to run, the requested model and its maximum of output tokens.

        Only the bytes for the provider outlive this method, not the parsed body.
        """
        if api.meter is None or not product.billable:
            await self.count_unpaid(caller)
        elif api.method == "POST":
            check_media_type(call.raw_headers)
        if api.meter is None:
            body = await self._read_body(call) if api.method == "POST" else b""
            exchange = self._exchange(call, api, body)
            return exchange, None, None
        if not call.request.complete:
            try:
                await self._gate.refuse_early(product, caller)
            except Refusal:
                # Even a team without credits gets an answer that was kept.
                if not await self._answers.knows(call, caller):
                    raise
        request = requests.read(api, await self._read_body(call), _betas(call))
        throttles.check_model(product, request.model, self._settings.small_models)
        watch.expect_within(self._settings.request_timeout)
        claim = None
        if product.billable and not request.stream:
            claim = await self._claim(call, caller, request.body)
        try:
            with call.trace.holding():
                admitted = await self._gate.admit(product, caller, request, call)
                call.run_percent = admitted.run_percent
                call.trace.held(admitted.admission.bound_micro)
        except BaseException:
            if claim is not None:
                await asyncio.shield(claim.end(generated=False))
            raise
        meter = meter_for(
            api.meter,
            stream=request.stream,
            hide_usage=request.stream and api.meter == "chat" and not request.usage_asked,
        )
        exchange = self._exchange(call, api, admitted.body, admitted.admission, meter, claim)
        return exchange, request.model, request.output_tokens

    async def _claim(self, call: Call, caller: Caller, body: bytes) -> Claim | None:
        """Claim the call's idempotency key; return None if it has none.

        If the claim fails, the call costs nothing and is counted as an unpaid request. Raises what
        `KeptAnswers.claim` raises, or a 429 `Refusal` after too many unpaid requests.
        """
        try:
            return await self._answers.claim(call, caller, body)
        except (AnswerKept, KeyInUse):
            await self.count_unpaid(caller)
            raise

    def _exchange(
        self,
        call: Call,
        api: Api,
        body: bytes,
        admission: Admission | None = None,
        meter: Meter | None = None,
        claim: Claim | None = None,
    ) -> Exchange:
        return Exchange(
            self._settings, self._upstreams, self._settler, call, api, body, admission, meter, claim
        )

    async def _read_body(self, call: Call) -> bytes:
        """Read the whole body. Raises `Refusal` if it is too large or compressed."""
        refuse_compressed(call.raw_headers)
        most = self._settings.max_body_bytes
        length = call.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        try:
            return await call.request.body(most)
        except BodyTooLarge:
            raise _too_large(most) from None
        except TooManyBodies as error:
            raise _too_many(of_all=error.budget is call.request.budget) from None


def _betas(call: Call) -> bytes:
    """Return all `anthropic-beta` headers joined, because the provider reads all of them."""
    if b"anthropic-beta" not in call.headers:
        return b""
    return b",".join(value for name, value in call.raw_headers if name == b"anthropic-beta")


def _too_many(*, of_all: bool) -> Refusal:
    if of_all:
        message = "The gateway is receiving too much at the moment. Please try again."
        return unavailable(message, "too_many_bodies", 1)
    message = "This token is sending too much at once. Please try again."
    return Refusal(429, "too_many_bodies", message, retry_after=1)


def _too_large(most: int) -> Refusal:
    return Refusal(413, "body_too_large", f"The request body exceeds {most} bytes.", retry=False)

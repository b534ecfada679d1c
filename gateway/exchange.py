"""One call to the provider: send the request, pass the answer back, settle."""

import asyncio
import time

from gateway.admission import Admission
from gateway.apis import Api
from gateway.booking import Ending, Settler
from gateway.call import Call
from gateway.errors import Refusal
from gateway.kept_answers import Claim
from gateway.metering import Meter, meter_for
from gateway.metering.media import is_compressed, is_event_stream
from gateway.network.client import ExchangeFailed, HttpResponse
from gateway.network.headers import RUN_USED, Headers
from gateway.network.incoming import CallerLeft
from gateway.network.interruptions import Watch
from gateway.settings import Settings
from gateway.telemetry import metrics
from gateway.upstream import (
    UpstreamFailed,
    Upstreams,
    no_answer,
    no_answer_in_time,
    response_headers,
)


class Exchange:
    """Forwards a call and passes the answer back. `admission` is None if the call costs nothing.

    If the caller leaves, the exchange keeps reading for a while, until the provider reports the
    usage. The part that the caller saw says little about the cost, and leaving early must not make
    a call cheaper.
    """

    def __init__(
        self,
        settings: Settings,
        upstreams: Upstreams,
        settler: Settler,
        call: Call,
        api: Api,
        body: bytes,
        admission: Admission | None,
        meter: Meter | None,
        claim: Claim | None = None,
    ) -> None:
        self._settings = settings
        self._upstreams = upstreams
        self._settler = settler
        self._call = call
        self._api = api
        self._body = body  # dropped once it is sent
        self._admission = admission
        self._meter = meter
        self._claim = claim
        self._ending = Ending(call.began)
        self._settled = admission is None
        self._head: Headers | None = None  # of the answer, not sent yet
        self._waited = 0.0  # seconds spent waiting for the provider
        self._reading = False  # waiting for the provider, not for a slow caller

    async def run(self, watch: Watch) -> None:
        """Run the exchange. Raises `CallerLeft`, or `Refusal` if the provider gave no answer."""
        call, ending = self._call, self._ending
        watch.listen(call.request.on_departure, self._settings.drain_timeout)
        try:
            if call.request.departed:  # before the provider was called
                self._release()
                raise CallerLeft
            await self._forward(watch)
        except asyncio.CancelledError:
            ending.failed = ending.given_up = True
            if not watch.claim():
                raise  # the server is stopping
            # A provider that goes silent in the middle of its answer broke it off.
            ending.given_up = not ending.status or watch.left or not self._reading
            if watch.left:
                raise CallerLeft from None
            if not call.started:
                raise no_answer_in_time(self._api.provider) from None
        except Refusal:  # the breaker is open: the provider was not called
            self._release()
            raise
        except (UpstreamFailed, ExchangeFailed):
            ending.failed = True
            if not call.started:
                raise no_answer(self._api.provider) from None
        finally:
            watch.close()
            if not self._settled:
                await asyncio.shield(self._settle())
            if self._claim is not None:
                await asyncio.shield(self._end_claim(self._claim))
            metrics.ADDED_SECONDS.observe(time.perf_counter() - call.began - self._waited)

    async def _forward(self, watch: Watch) -> None:
        clock, idle = time.perf_counter, self._settings.idle_timeout
        call = self._call
        request = call.request
        watch.expect_within(self._settings.first_byte_timeout)
        asked = clock()
        answer = await self._open()
        try:
            self._waited += clock() - asked
            streamed = self._begin(answer)
            headers = self._head or []
            meter = self._meter
            held_back = b""
            while True:
                watch.expect_within(idle)
                asked = clock()
                self._reading = True
                chunk = await answer.read()
                self._reading = False
                self._waited += clock() - asked
                if chunk is None:
                    break
                if meter is not None:
                    chunk = meter.feed(chunk)
                if self._claim is not None:
                    self._claim.add(chunk)
                if streamed:
                    if not self._settled and meter is not None and meter.finished:
                        await self._settle()
                    if chunk and not watch.left:
                        request.write(chunk)
                elif held_back and not watch.left:  # the last bytes wait for the settlement
                    self._send_head()
                    request.write(held_back)
                if request.congested:
                    await request.drained()
                if not streamed:
                    held_back = chunk
        finally:
            answer.close()
        if meter is not None:
            held_back += meter.end()
        if self._claim is not None and not streamed and self._succeeded(answer):
            await self._claim.keep(answer.status, headers)
        if not self._settled:
            await self._settle()
        if self._claim is not None:  # before the last byte: the caller may repeat the call at once
            await asyncio.shield(self._end_claim(self._claim))
        if not watch.left:
            self._send_head()
            request.end(held_back)

    def _succeeded(self, answer: HttpResponse) -> bool:
        """Return whether the answer is complete and not an error, whatever its status says."""
        meter = self._meter
        if answer.status >= 300 or meter is None or not meter.finished:
            return False
        return not meter.failed and meter.usage() is not None

    async def _open(self) -> HttpResponse:
        """Send the request, release its body, and return the answer."""
        call, body, self._body = self._call, self._body, b""
        answer = await self._upstreams.open(
            self._api, call.request.query, call.raw_headers, body, self._note_sending
        )
        call.request.release_body()
        return answer

    def _note_sending(self) -> None:
        self._ending.sent = True

    def _begin(self, answer: HttpResponse) -> bool:
        """Prepare the head of the answer; return whether it is an event stream.

        The head of a stream is sent at once, any other head with the first bytes of the body.
        """
        self._ending.status = answer.status
        self._ending.compressed = is_compressed(answer.headers)
        asked = self._admission is not None and self._admission.record.stream
        streamed = is_event_stream(answer.headers, asked=asked)
        if self._admission is not None and (
            answer.status >= 400 or streamed != self._admission.record.stream
        ):
            self._meter = meter_for(self._api.meter or "", stream=streamed, hide_usage=False)
        filtered = self._meter is not None and self._meter.hides_usage
        provider = self._api.provider
        self._head = response_headers(answer.headers, provider, length_changes=filtered)
        if self._call.run_percent >= 0:
            self._head.append((RUN_USED, b"%d" % self._call.run_percent))
        if streamed:
            self._send_head()
            self._call.request.send_head_soon()
        return streamed

    def _send_head(self) -> None:
        if self._head is not None:
            self._call.status = self._ending.status
            self._call.request.start(self._ending.status, self._head)
            self._head = None

    def _release(self) -> None:
        """Release the hold without booking, because no call was made."""
        if self._admission is not None:
            self._settled = True
            self._settler.release(self._admission)

    async def _end_claim(self, claim: Claim) -> None:
        """Let the call's idempotency key be used again, unless its answer was kept."""
        self._claim = None
        await claim.end(generated=self._ending.sent and self._ending.status < 400)

    async def _settle(self) -> None:
        """Book the call, once."""
        assert self._admission is not None
        assert self._meter is not None
        self._settled = True
        trace = self._call.trace
        with trace.settling():
            outcome = await self._settler.settle(self._admission, self._meter, self._ending)
            trace.settled(outcome.usage, outcome.cost, estimated=outcome.estimated)

"""One call at the provider: request out, answer back, settlement in between."""

import asyncio
import time

from gateway import metrics
from gateway.admission import Admission
from gateway.apis import Api
from gateway.booking import Books, Ending
from gateway.call import Call, CallerLeft, Message
from gateway.metering import Meter, meter_for
from gateway.settings import Settings
from gateway.upstream import (
    Answer,
    UpstreamFailed,
    Upstreams,
    no_answer,
    no_answer_in_time,
    response_headers,
)
from gateway.watch import Watch


class Exchange:
    """Passes a call on and its answer back. `admission` is None for what costs nothing.

    An answer whose reader leaves is read on for a while, until it tells its usage: what the caller
    saw of it says little of what it cost, and leaving early must not make it cheaper.
    """

    def __init__(
        self,
        settings: Settings,
        upstreams: Upstreams,
        books: Books,
        call: Call,
        api: Api,
        body: bytes,
        admission: Admission | None,
        meter: Meter | None,
    ) -> None:
        self._settings = settings
        self._upstreams = upstreams
        self._books = books
        self._call = call
        self._api = api
        self._body = body
        self._admission = admission
        self._meter = meter
        self._ending = Ending(call.began)
        self._settled = admission is None
        self._head: Message | None = None  # of the answer, not sent yet
        self._waited = 0.0  # for the provider
        self._reading = False  # from the provider, not writing to a caller who may not take it

    async def run(self, watch: Watch) -> None:
        """Carry the exchange out. Raises `Refusal` when the provider gave no answer."""
        call, ending = self._call, self._ending
        watch.listen(call.departure, self._settings.drain_timeout)
        try:
            await self._forward(watch)
        except asyncio.CancelledError:
            ending.failed = ending.given_up = True
            if not watch.claim():
                raise  # the server stops
            ending.abandoned = watch.left or not self._reading
            if watch.left:
                raise CallerLeft from None
            if not call.started:
                raise no_answer_in_time(self._api.provider) from None
        except UpstreamFailed:
            ending.failed = True
            if not call.started:
                raise no_answer(self._api.provider) from None
        finally:
            watch.close()
            if not self._settled:
                await asyncio.shield(self._settle())
            metrics.ADDED_SECONDS.observe(time.perf_counter() - call.began - self._waited)

    async def _forward(self, watch: Watch) -> None:
        clock, idle = time.perf_counter, self._settings.idle_timeout
        call, meter = self._call, self._meter
        watch.expect_within(self._settings.first_byte_timeout)
        asked = clock()
        async with self._upstreams.call(
            self._api, call.query, call.raw_headers, self._body
        ) as answer:
            self._waited += clock() - asked
            streamed = await self._begin(answer)
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
                if streamed:
                    if not self._settled and meter is not None and meter.finished:
                        await self._settle()
                    if chunk and not watch.left:
                        await self._send(chunk, more=True)
                else:
                    # The last bytes wait for the settlement.
                    if held_back and not watch.left:
                        await self._send(held_back, more=True)
                    held_back = chunk
            if meter is not None:
                held_back += meter.end()
            if not self._settled:
                await self._settle()
            if not watch.left:
                await self._send(held_back, more=False)

    async def _begin(self, answer: Answer) -> bool:
        """Prepare the head of the answer; tell whether it is a stream of events.

        The head of a stream goes out at once, any other with the first of the body.
        """
        self._ending.status = answer.status
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
        self._head = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": headers,
        }
        if streamed:
            await self._send_head()
        return streamed

    async def _send_head(self) -> None:
        call, head = self._call, self._head
        if head is not None:
            self._head = None
            call.status, call.started = head["status"], True
            await call.send(head)

    async def _send(self, body: bytes, *, more: bool) -> None:
        await self._send_head()
        await self._call.send({"type": "http.response.body", "body": body, "more_body": more})

    async def _settle(self) -> None:
        """Book the call, once."""
        assert self._admission is not None
        assert self._meter is not None
        self._settled = True
        trace = self._call.trace
        with trace.settling():
            trace.settled(await self._books.settle(self._admission, self._meter, self._ending))

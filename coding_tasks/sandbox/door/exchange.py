"""One connection from inside the sandbox: its requests, one after another, and their answers.

h11 parses both directions, and what it understood is written anew. So the gateway never sees a
byte of framing that the sandbox wrote.
"""

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass, replace

import h11

from coding_tasks.sandbox.door.admission import (
    PathFilter,
    Refused,
    admit,
    end_to_end,
    request_headers,
)
from coding_tasks.sandbox.door.gateway import LONGEST_HEAD, Gateway, Upstream
from coding_tasks.sandbox.interface import MOST_REFUSAL, Refusal, Refusals

_CHUNK = 65_536
_LINGER = 1.0
"""Seconds."""
_TYPE = b"application/json"
_REASON = "x-tollgate-reason"
"""The header that marks the gateway's own refusals."""


@dataclass(frozen=True)
class Bounds:
    """What one connection may cost the worker. Sizes are bytes, times seconds."""

    request: int = 64_000_000
    answer: int = 512_000_000
    head_within: float = 60.0
    """For a request's head. An idle connection is closed after this time."""
    connect_within: float = 10.0


class _TooBig(Exception):
    """A body exceeds its bound."""


class Conversation:
    """Serves one connection until either side closes it."""

    def __init__(
        self,
        connection: socket.socket,
        gateway: Gateway,
        paths: PathFilter,
        bounds: Bounds,
        refusals: Refusals,
        token: str = "",
    ) -> None:
        self._socket = connection
        self._gateway = gateway
        self._paths = paths
        self._bounds = bounds
        self._refusals = refusals
        self._token = token
        self._inside = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
        self._writers: list[asyncio.StreamWriter] = []
        self._upstream: Upstream | None = None

    def abort(self) -> None:
        """Cut both connections without sending what waits to be sent."""
        for writer in self._writers:
            writer.transport.abort()

    async def run(self) -> None:
        """Serve requests. Cuts the connection when its peer breaks the protocol."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket)
        self._writers.append(self._writer)
        try:
            while await self._serve_one():
                pass
        except (OSError, h11.LocalProtocolError):
            return
        finally:
            self.abort()

    async def _serve_one(self) -> bool:
        """Serve one request. Return whether another one can follow."""
        try:
            async with asyncio.timeout(self._bounds.head_within):
                request = await self._next(self._inside, self._reader)
            if not isinstance(request, h11.Request):
                return False
            admit(request, self._paths, self._token)
            return await self._relay(request)
        except TimeoutError:
            return False
        except h11.RemoteProtocolError as error:
            await self._refuse(Refused(error.error_status_hint, "this is not HTTP"))
        except Refused as refused:
            await self._refuse(refused)
        return False

    async def _relay(self, request: h11.Request) -> bool:
        upstream = await self._connect()
        head = h11.Request(
            method=request.method,
            target=self._gateway.prefix + request.target,
            headers=request_headers(request, self._gateway.authority),
        )
        await _send(upstream.writer, upstream.state, head)
        if self._inside.they_are_waiting_for_100_continue:
            await self._answer(h11.InformationalResponse(status_code=100, headers=[]))
        # Together, because a gateway can answer before it has read the body.
        sending = asyncio.create_task(self._send_body(upstream))
        try:
            await self._pass_answer(upstream)
            if not sending.done():
                return False
            sending.result()
        except _TooBig:
            return False
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await sending
        return self._start_over(upstream)

    async def _send_body(self, upstream: Upstream) -> None:
        left = self._bounds.request
        while True:
            event = await self._next(self._inside, self._reader)
            if isinstance(event, h11.Data):
                left -= len(event.data)
                if left < 0:
                    self.abort()
                    raise _TooBig
                await _send(upstream.writer, upstream.state, h11.Data(data=event.data))
            elif isinstance(event, h11.EndOfMessage):
                await _send(upstream.writer, upstream.state, h11.EndOfMessage())
                return
            else:  # closed in the middle: nobody waits for an answer
                self.abort()
                return

    async def _pass_answer(self, upstream: Upstream) -> None:
        left = self._bounds.answer
        refusal: Refusal | None = None
        body = b""
        while True:
            try:
                event = await self._next(upstream.state, upstream.reader)
            except (h11.RemoteProtocolError, OSError) as error:
                raise Refused(502, "the gateway broke off") from error
            if isinstance(event, h11.Response):
                refusal = self._note(event)
                headers = end_to_end(event.headers)
                await self._answer(
                    h11.Response(
                        status_code=event.status_code, headers=headers, reason=event.reason
                    )
                )
            elif isinstance(event, h11.Data):
                left -= len(event.data)
                if left < 0:
                    raise _TooBig
                body += event.data[: MOST_REFUSAL - len(body)]
                await self._answer(h11.Data(data=event.data))
            elif isinstance(event, h11.EndOfMessage):
                if refusal is not None and self._refusals.last is refusal:
                    self._refusals.last = replace(refusal, body=body)
                await self._answer(h11.EndOfMessage())
                return
            elif not isinstance(event, h11.InformationalResponse):
                raise Refused(502, "the gateway broke off")

    def _note(self, answer: h11.Response) -> Refusal | None:
        """Remember whether the gateway itself refused the call; return the refusal.

        The head of the answer decides. The end can come late, or never if nobody reads it.
        """
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers
        }
        if _REASON in headers:
            self._refusals.last = Refusal(answer.status_code, headers, b"")
            return self._refusals.last
        if answer.status_code < 400:
            self._refusals.last = None
        return None

    def _start_over(self, upstream: Upstream) -> bool:
        if upstream.state.our_state is h11.DONE and upstream.state.their_state is h11.DONE:
            upstream.state.start_next_cycle()
        states = self._inside.our_state, self._inside.their_state
        if states != (h11.DONE, h11.DONE):
            return False
        self._inside.start_next_cycle()
        return True

    async def _connect(self) -> Upstream:
        if self._upstream is not None:
            if self._upstream.is_reusable():
                return self._upstream
            self._writers.remove(self._upstream.writer)
            self._upstream.writer.transport.abort()
        try:
            async with asyncio.timeout(self._bounds.connect_within):
                self._upstream = await self._gateway.connect()
        except OSError as error:
            self._upstream = None
            raise Refused(502, "the gateway cannot be reached") from error
        self._writers.append(self._upstream.writer)
        return self._upstream

    async def _refuse(self, refused: Refused) -> None:
        """Answer in the shape that clients of model APIs read, unless an answer has begun."""
        if self._inside.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        error = {"type": "error", "error": {"type": "sandbox_door", "message": refused.reason}}
        body = json.dumps(error).encode()
        headers = [
            (b"content-type", _TYPE),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await self._answer(h11.Response(status_code=refused.status, headers=headers))
        await self._answer(h11.Data(data=body))
        await self._answer(h11.EndOfMessage())
        await self._linger()

    async def _linger(self) -> None:
        """Read what is still coming, because closing before would also destroy the answer."""
        self._writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while await self._reader.read(_CHUNK):
                    pass

    async def _answer(self, event: h11.Event) -> None:
        await _send(self._writer, self._inside, event)

    async def _next(self, state: h11.Connection, reader: asyncio.StreamReader) -> object:
        """Return the next event. Raises `h11.RemoteProtocolError` and OSError."""
        while (event := state.next_event()) is h11.NEED_DATA:
            state.receive_data(await reader.read(_CHUNK))
        return event


async def _send(writer: asyncio.StreamWriter, state: h11.Connection, event: h11.Event) -> None:
    if data := state.send(event):
        writer.write(data)
        await writer.drain()

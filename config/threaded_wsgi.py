"""Run a WSGI application on an ASGI server, so that a slow client can't hold a thread.

The event loop reads the whole request before a thread takes it. The thread hands the whole answer
back, and the event loop sends it.
"""

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog

from config.charsets import Application
from config.request_bodies import Bodies, Gone, Limits, Receive, Refused
from config.request_metrics import BEFORE_DJANGO

log = structlog.get_logger(__name__)

Environ = dict[str, Any]
Headers = list[tuple[bytes, bytes]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Answer:
    """A whole HTTP response."""

    status: int
    headers: Headers
    body: bytes


class ThreadedWSGI:
    """An ASGI application that calls a WSGI application in a pool of threads."""

    def __init__(self, application: Application, threads: int, limits: Limits) -> None:
        self._application = application
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._bodies = Bodies(limits)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request: https://asgi.readthedocs.io/en/stable/specs/www.html."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served here, not {scope['type']}")
        try:
            answer = await self._answer(_environ(scope), receive)
        except Refused as refused:
            BEFORE_DJANGO.labels(refused.status).inc()
            answer = _refusal(refused)
        except Gone:
            return
        head = {"status": answer.status, "headers": answer.headers}
        await send({"type": "http.response.start", **head})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, environ: Environ, receive: Receive) -> Answer:
        with self._bodies.room() as body:
            declared = environ.get("CONTENT_LENGTH", "")
            if declared or environ.pop("HTTP_TRANSFER_ENCODING", ""):
                await self._bodies.read(body, receive, int(declared or 0))
                environ["CONTENT_LENGTH"] = str(len(body.content))
            environ["wsgi.input"] = io.BytesIO(body.content)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._call, environ)

    def _call(self, environ: Environ) -> Answer:
        """Return the application's answer, or a 500 if it fails."""
        begun: list[tuple[str, list[tuple[str, str]]]] = []
        written: list[bytes] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], _error: object = None
        ) -> Callable[[bytes], object]:
            begun[:] = [(status, headers)]
            return written.append

        try:
            chunks = self._application(environ, start_response)
            try:
                written.extend(chunks)
            finally:
                _close(chunks)
            [(status, headers)] = begun
            return Answer(int(status[:3]), _encoded(headers), b"".join(written))
        except Exception:
            BEFORE_DJANGO.labels(500).inc()
            log.exception("the application failed", path=environ["PATH_INFO"])
            return Answer(500, [(b"content-type", b"text/plain")], b"Internal Server Error")


def _environ(scope: dict[str, Any]) -> Environ:
    """Return WSGI's environment of a request (PEP 3333).

    A header whose name has an underscore is left out: WSGI could not distinguish it from one with
    a hyphen, which a proxy may have written.
    """
    host, port = scope.get("server") or ("localhost", 80)
    client = scope.get("client") or ("", 0)
    path = scope.get("raw_path") or scope["path"].encode()
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path.partition(b"?")[0]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for raw, content in scope["headers"]:
        if b"_" in raw:
            continue
        name = raw.decode("latin-1").upper().replace("-", "_")
        key = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        value = content.decode("latin-1")
        if key in environ:
            separator = "; " if key == "HTTP_COOKIE" else ","
            value = f"{environ[key]}{separator}{value}"
        environ[key] = value
    return environ


def _encoded(headers: Iterable[tuple[str, str]]) -> Headers:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _close(chunks: Iterable[bytes]) -> None:
    close = getattr(chunks, "close", None)
    if close is not None:
        close()


def _refusal(refused: Refused) -> Answer:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if refused.status == 503:
        headers.append((b"retry-after", b"1"))
    return Answer(refused.status, headers, b'{"detail": "%s"}' % str(refused).encode())

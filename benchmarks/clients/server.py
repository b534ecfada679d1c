"""The server that refuses. Each run has its own address, so parallel runs can be distinguished."""

import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from benchmarks.clients.refusals import Variant
from gateway.errors import Dialect

_DIALECTS: dict[str, Dialect] = {
    "/messages": "anthropic",
    "/chat/completions": "chat",
    "/responses": "responses",
}


@dataclass
class Attempts:
    """When a client called a model, and how it is refused."""

    variant: Variant
    times: list[float] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *details: Any) -> None:
        """Print an error, unless it is the broken connection of a client that was ended."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*details)


class RefusingServer:
    """Refuses every call of a model; other paths do not exist."""

    def __init__(self) -> None:
        self._runs: dict[str, Attempts] = {}
        runs = self._runs

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                _, run, path = self.path.partition("?")[0].split("/", 2)
                dialect = _DIALECTS.get("/" + path.removeprefix("v1/"))
                if dialect is None or run not in runs:
                    self._answer(404, [], b"{}")
                    return
                runs[run].times.append(time.monotonic())
                asked = {
                    name.lower().encode(): value.encode() for name, value in self.headers.items()
                }
                self._answer(*runs[run].variant.response(dialect, asked))

            def do_GET(self) -> None:
                upgrade = "upgrade" in self.headers  # Codex uses HTTP only after this
                self._answer(426 if upgrade else 404, [], b"{}")

            def do_HEAD(self) -> None:
                self._answer(200, [], b"")

            def _answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    if name != b"content-length":
                        self.send_header(name.decode(), value.decode())
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Print nothing: the table is the output."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def expect(self, run: str, variant: Variant) -> tuple[str, Attempts]:
        """Return this run's address in place of the gateway, and the record of its calls."""
        attempts = self._runs[run] = Attempts(variant)
        return f"http://127.0.0.1:{self._server.server_port}/{run}", attempts

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

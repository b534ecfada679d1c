"""A Sentry server: keeps the reports that it receives, and every byte of the requests."""

import gzip
import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.conftest import wait_until
from tests.gateway.threads import AsgiThread


class FakeSentry(AsgiThread):
    """Receives envelopes (https://develop.sentry.dev/sdk/foundations/envelopes/)."""

    def __init__(self) -> None:
        route = Route("/api/7/envelope/", self._receive, methods=["POST"])
        super().__init__(Starlette(routes=[route]))
        self.dsn = f"http://public-key@127.0.0.1:{self.port}/7"
        self.reports: list[dict[str, Any]] = []
        self.raw = b""

    async def _receive(self, request: Request) -> Response:
        body = gzip.decompress(await request.body())
        self.raw += body + b"".join(name + value for name, value in request.headers.raw)
        lines = body.splitlines()
        for head, payload in zip(lines[1::2], lines[2::2], strict=True):
            assert json.loads(head)["type"] == "event"
            self.reports.append(json.loads(payload))
        return JSONResponse({})

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """Wait for this many reports; return them all."""
        wait_until(lambda: len(self.reports) >= count, what=f"{count} reports at Sentry")
        assert len(self.reports) == count
        return self.reports


def functions(report: dict[str, Any]) -> list[str]:
    """Return the functions in the traceback of the last exception of a report."""
    raised = report["exception"]["values"][-1]
    return [frame["function"] for frame in raised["stacktrace"]["frames"]]


def position(report: dict[str, Any]) -> str:
    """Return the file in which an error without an exception was logged."""
    [thread] = report["threads"]["values"]
    [frame] = thread["stacktrace"]["frames"]
    return str(frame["filename"])

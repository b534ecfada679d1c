"""The demo Slack as one ASGI application: Web API, page, and verbs for tests."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from devstack.demo_slack.control import Control
from devstack.demo_slack.database import Database
from devstack.demo_slack.demo_team import TEAM
from devstack.demo_slack.events import RETRY_AFTER, Events
from devstack.demo_slack.faults import Faults
from devstack.demo_slack.file_methods import Files, media_type
from devstack.demo_slack.installations import Installations
from devstack.demo_slack.interactions import Interactions
from devstack.demo_slack.modals import Modals
from devstack.demo_slack.outbox import Outbox
from devstack.demo_slack.page import Page
from devstack.demo_slack.response_urls import ResponseURLs
from devstack.demo_slack.sockets import Sockets
from devstack.demo_slack.web_api import SCOPE, WebAPI
from devstack.demo_slack.workspace import Json, Workspace
from devstack.loopback import LoopbackOnly


@dataclass(frozen=True)
class Call:
    """One call of a Web API method as it arrived."""

    method: str
    authorization: str
    arguments: Json
    answer: Json = field(default_factory=dict)
    at: float = field(default_factory=time.time)


class DroppedAnswer(Response):
    """Closes the connection without a byte, so the caller cannot know what happened."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["tollgate.transport"].abort()
        await asyncio.sleep(0)


class DemoSlack:
    """One local Slack: its state, its events, its faults and its ASGI application."""

    def __init__(
        self,
        base_url: str,
        app_url: str,
        signing_secret: str,
        database: Path | None = None,
        retry_after: tuple[float, ...] = RETRY_AFTER,
    ) -> None:
        self.database = Database(database)
        self.workspace = Workspace(self.database)
        self.installations = Installations(self.database)
        self.sockets = Sockets(base_url)
        self.events = Events(
            Outbox(self.database),
            self.installations,
            self.sockets,
            app_url,
            signing_secret,
            retry_after,
        )
        self.modals = modals = Modals()
        self.web_api = WebAPI(
            self.workspace, self.installations, self.events, modals, self.sockets, base_url
        )
        self.interactions = Interactions(
            self.workspace,
            self.installations,
            ResponseURLs(self.database),
            self.events,
            modals,
            base_url,
        )
        self.limits = self.web_api.limits
        self.files = Files(self.database)
        self.faults = Faults()
        self._calls: list[Call] = []
        self._calls_lock = threading.Lock()
        page = Page(
            self.database, self.workspace, self.events, self.interactions, self.files, base_url
        )
        control = Control(
            self.workspace,
            self.events,
            self.faults,
            self.limits,
            self.files,
            base_url,
            lambda: [asdict(c) for c in self.calls()],
        )
        routes = [
            Route("/api/{method}", self._web_api, methods=["GET", "POST"]),
            Route("/respond/{key}", self._respond, methods=["POST"]),
            Route("/upload/v1/{file}", self._upload, methods=["POST"]),
            Route("/files/{file}", self._download),
            Route("/files-pri/{file}/download", self._download_with_token),
            Route("/oauth/v2/authorize", self._authorize),
            WebSocketRoute("/link/", self.sockets.serve),
            Route("/_health", self._health),
            *page.routes(),
            *control.routes(),
        ]
        self.app: ASGIApp = LoopbackOnly(
            _WithTransport(Starlette(routes=routes, lifespan=self._lifespan))
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        delivering = asyncio.create_task(self.events.deliver_forever())
        yield
        delivering.cancel()
        with suppress(asyncio.CancelledError):
            await delivering

    def calls(self, method: str | None = None) -> list[Call]:
        """Return the Web API calls so far, oldest first, of one method or of all."""
        with self._calls_lock:
            return [call for call in self._calls if method in (None, call.method)]

    def forget_calls(self) -> None:
        """Forget the recorded calls. A call that still hangs is dropped and has no effect."""
        with self._calls_lock:
            self._calls = []

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _respond(self, request: Request) -> Response:
        body = await _arguments(request)
        valid = self.interactions.respond(request.path_params["key"], body)
        return PlainTextResponse("ok") if valid else PlainTextResponse("expired_url", 404)

    async def _upload(self, request: Request) -> Response:
        """Accept the bytes of a file, as `files.slack.com` does."""
        fault = self.faults.take("upload")
        if fault is not None:
            await asyncio.sleep(fault.hang)
            return PlainTextResponse(fault.error, fault.status)
        taken = self.files.take(request.path_params["file"], await request.body())
        return PlainTextResponse("OK") if taken else PlainTextResponse("no such upload", 404)

    async def _download(self, request: Request) -> Response:
        content = self.files.content(request.path_params["file"])
        return PlainTextResponse("no such file", 404) if content is None else _shown(content)

    async def _download_with_token(self, request: Request) -> Response:
        """Give a file to a bot. As in Slack, others get a login page with status 200."""
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        install = self.installations.of_token(bearer)
        fault = self.faults.take("download")
        if fault is not None:
            return PlainTextResponse(fault.error, fault.status)
        if install is None or not install.active:
            return HTMLResponse("<!DOCTYPE html><title>Log in</title>")
        return await self._download(request)

    async def _authorize(self, request: Request) -> Response:
        """Agree to the installation in the demo's team at once, and send the browser back."""
        asked = request.query_params
        if not asked.get("client_id") or not asked.get("redirect_uri"):
            return PlainTextResponse("client_id and redirect_uri are needed\n", 400)
        answer = {"code": self.installations.new_code(TEAM), "state": asked.get("state", "")}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 302)

    async def _web_api(self, request: Request) -> Response:
        method = request.path_params["method"]
        arguments = await _arguments(request)
        authorization = request.headers.get("authorization", "")
        fault = self.faults.take(method)
        record = self._calls
        if fault is not None:
            await asyncio.sleep(fault.hang)
            if record is not self._calls:
                return DroppedAnswer()
        if fault is not None and fault.error:
            self.web_api.check_blocks(arguments)
            answer: Json = {"ok": False, "error": fault.error}
        else:
            answer = self.web_api.call(method, authorization, arguments)
        with self._calls_lock:
            self._calls.append(Call(method, authorization, arguments, answer))
        if fault is None:
            return JSONResponse(answer, headers={"X-OAuth-Scopes": SCOPE} if answer["ok"] else {})
        if fault.drop:
            return DroppedAnswer()
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        return JSONResponse(answer, fault.status, headers)


class _WithTransport:
    """Gives the connection's transport to the application, so that it can drop an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn's `send` is a method of the cycle that owns the connection.
        scope["tollgate.transport"] = getattr(getattr(send, "__self__", None), "transport", None)
        await self.app(scope, receive, send)


def _shown(content: bytes) -> Response:
    """Return a file that a browser shows as an image or as text, and never runs."""
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
    return Response(content, media_type=media_type(content), headers=headers)


async def _arguments(request: Request) -> Json:
    """Return a call's arguments, from the query and from a form or JSON body."""
    arguments: Json = dict(request.query_params)
    body = await request.body()
    if request.headers.get("content-type", "").startswith("application/json"):
        with suppress(ValueError):
            parsed = json.loads(body or b"{}")
            arguments |= parsed if isinstance(parsed, dict) else {}
    else:
        arguments |= dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    return arguments

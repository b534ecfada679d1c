"""Keep other web pages from calling the demo servers through the user's browser."""

from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_LOCAL = {"localhost", "127.0.0.1"}


class LoopbackOnly:
    """Refuses a request for another host (DNS rebinding) or from another site's page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            host = urlsplit(f"//{headers.get(b'host', b'').decode('latin-1')}").hostname
            origin = headers.get(b"origin")
            same_site = origin is None or urlsplit(origin.decode("latin-1")).hostname in _LOCAL
            if host not in _LOCAL or not same_site:
                refusal = PlainTextResponse("Only for this machine.\n", 403)
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)

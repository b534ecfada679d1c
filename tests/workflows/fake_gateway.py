"""A gateway that passes calls on to the demo model, or refuses like the real one."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.types import Message, Receive, Scope, Send

from tests.fakes import FakeModel

AGENT = "/slack_app/v1/messages"
API_AGENT = "/posthog_code/v1/messages"
CLASSIFIER = "/slack_app_routing/v1/messages"


class FakeGateway(FakeModel):
    """The products of coding tasks, each in front of the fake model."""

    def __init__(self) -> None:
        super().__init__()
        self._refusals: list[tuple[str, JSONResponse]] = []
        self.refused_with: list[str] = []
        self._before_refusing: Callable[[], None] = _nothing
        self._holds_next = False
        self._released = threading.Event()
        model = self.model.app
        products = [
            Mount("/slack_app_routing", self._product("slack_app_routing", model)),
            Mount("/slack_app", self._product("slack_app", model)),
            Mount("/posthog_code", self._product("posthog_code", model)),
        ]
        self.model.app = Starlette(routes=products)

    def refuse_next(
        self, product: str, *, retry: bool = False, cause: str = "", times: int = 1
    ) -> None:
        """Refuse the next calls of a product as for a team without credits.

        With `retry` other calls hold what is left, and the refusal says that waiting helps. `cause`
        names a cap that was reached.
        """
        self._refusals.extend([(product, _out_of_credits(retry, cause))] * times)

    def decline_next(self, product: str, reason: str, status: int = 503, *, times: int = 1) -> None:
        """Refuse the next calls of a product as the gateway does when it cannot decide."""
        self._refusals.extend([(product, _declined(reason, status))] * times)

    def hold_next(self) -> None:
        """Hold back the answer to the agent's next call until `release`. The call is recorded."""
        self._holds_next = True

    def release(self) -> None:
        """Release the answer that is held back, if any."""
        self._released.set()
        self._holds_next, self._released = False, threading.Event()

    def before_refusing(self, act: Callable[[], None]) -> None:
        """Run an action just before a refusal is answered."""
        self._before_refusing = act

    def reset(self) -> None:
        super().reset()
        self.release()
        self._refusals.clear()
        self.refused_with.clear()
        self._before_refusing = _nothing

    def _product(self, name: str, model: Starlette) -> Any:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            refusal = next((each for each in self._refusals if each[0] == name), None)
            if refusal is not None:
                self._refusals.remove(refusal)
                self.refused_with.append(dict(scope["headers"])[b"authorization"].decode())
                await asyncio.to_thread(self._before_refusing)
                await refusal[1](scope, receive, send)
                return
            if self._holds_next and name in ("slack_app", "posthog_code"):
                self._holds_next = False
                send = _after(self._released, send)
            await model(scope, receive, _as_passed_on(send))

        return serve


def _nothing() -> None: ...


def _after(event: threading.Event, send: Send) -> Send:
    async def send_later(message: Message) -> None:
        await asyncio.to_thread(event.wait, 60)
        await send(message)

    return send_later


def _as_passed_on(send: Send) -> Send:
    async def mark_and_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message["headers"], (b"x-tollgate-provider", b"anthropic")]
            message = {**message, "headers": headers}
        await send(message)

    return mark_and_send


def _declined(reason: str, status: int) -> JSONResponse:
    error = {"type": "overloaded_error", "message": "Please try again.", "reason": reason}
    headers = {"Retry-After": "1", "x-tollgate-reason": reason}
    return JSONResponse({"type": "error", "error": error}, status, headers)


def _out_of_credits(retry: bool, cause: str) -> JSONResponse:
    of_the_run = cause.endswith("run_cap_reached") or cause == "accepted_cap_reached"
    reason = "run_cap" if of_the_run else "billable_credits"
    return JSONResponse(
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "Your team has used its monthly credits.",
                "reason": reason,
                "cause": cause or None,
                "resets_at": "2030-01-01T00:00:00Z",
            },
        },
        429,
        {
            "Retry-After": "1" if retry else "60",
            "x-should-retry": "true" if retry else "false",
            "x-tollgate-reason": reason,
        },
    )

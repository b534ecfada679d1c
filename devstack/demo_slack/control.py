"""Verbs over HTTP, for tests and tours that run the demo Slack as a separate process."""

import dataclasses
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from devstack.demo_slack.events import Events
from devstack.demo_slack.faults import Fault, Faults
from devstack.demo_slack.file_methods import Files
from devstack.demo_slack.limits import Limits
from devstack.demo_slack.workspace import Json, Workspace


class Control:
    """`/_control/…`: post as somebody, read a thread, let calls fail, list the calls."""

    def __init__(
        self,
        workspace: Workspace,
        events: Events,
        faults: Faults,
        limits: Limits,
        files: Files,
        base_url: str,
        calls: Callable[[], list[Json]],
    ) -> None:
        self.workspace = workspace
        self.events = events
        self.faults = faults
        self.limits = limits
        self.files = files
        self.base_url = base_url
        self.calls = calls

    def routes(self) -> list[BaseRoute]:
        """Return the verbs' paths."""
        return [
            Route("/_control/posts", self._post, methods=["POST"]),
            Route("/_control/messages", self._messages),
            Route("/_control/messages", self._delete, methods=["DELETE"]),
            Route("/_control/calls", self._list_calls),
            Route("/_control/faults", self._add_fault, methods=["POST"]),
            Route("/_control/faults", self._clear_faults, methods=["DELETE"]),
            Route("/_control/limits", self._set_limits, methods=["POST"]),
        ]

    async def _post(self, request: Request) -> Response:
        """Post a message in its stored form: `{"user", "channel", "text", "thread_ts"?}`.

        `files` are attached to it: a list of `{"name", "content", "mimetype"?}`.
        """
        body = await request.json()
        channel = body.pop("channel")
        if files := body.pop("files", []):
            body |= {"subtype": "file_share", "files": [self._attach(file) for file in files]}
        message = self.workspace.add_message(channel, {"team": "T1", **body})
        self.events.message_posted(message["team"], channel, message)
        return JSONResponse(message)

    def _attach(self, file: Json) -> Json:
        kind = file.get("mimetype", "text/plain")
        return self.files.attach(file["name"], file["content"].encode(), kind, self.base_url)

    async def _messages(self, request: Request) -> Response:
        """Answer with a thread and its reactions. Without `thread_ts`, answer with the channel."""
        channel, thread = request.query_params["channel"], request.query_params.get("thread_ts")
        found = (
            self.workspace.thread(channel, thread) if thread else self.workspace.messages(channel)
        )
        for message in found:
            message["reactions"] = self.workspace.reactions(channel, message["ts"])
        return JSONResponse(found)

    async def _delete(self, request: Request) -> Response:
        """Delete a message as a person does: `?channel=C1&ts=…`."""
        channel, ts = request.query_params["channel"], request.query_params["ts"]
        message = self.workspace.message(channel, ts)
        if message is None:
            return JSONResponse({"error": "there is no such message"}, 404)
        self.workspace.delete_message(channel, ts)
        self.events.message_deleted(message["team"], channel, message)
        return JSONResponse({"ok": True})

    async def _list_calls(self, _request: Request) -> Response:
        return JSONResponse(self.calls())

    async def _add_fault(self, request: Request) -> Response:
        """Let calls fail: `{"method", "times"?}` and the fields of `Fault`."""
        body = await request.json()
        method, times = body.pop("method"), body.pop("times", 1)
        known = {field.name for field in dataclasses.fields(Fault)}
        if unknown := body.keys() - known:
            return JSONResponse({"error": f"unknown: {', '.join(sorted(unknown))}"}, 422)
        self.faults.add(method, Fault(**body), times)
        return JSONResponse({"ok": True})

    async def _set_limits(self, request: Request) -> Response:
        """Set the sizes that are accepted, by the fields of `Limits`."""
        body = await request.json()
        known = dataclasses.asdict(self.limits)
        if unknown := body.keys() - known.keys():
            return JSONResponse({"error": f"unknown: {', '.join(sorted(unknown))}"}, 422)
        for name, value in body.items():
            setattr(self.limits, name, int(value))
        return JSONResponse(dataclasses.asdict(self.limits))

    async def _clear_faults(self, _request: Request) -> Response:
        self.faults.clear()
        return JSONResponse({"ok": True})

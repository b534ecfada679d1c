"""The WSGI application, as a web server calls it."""

import asyncio
import io
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from prometheus_client import REGISTRY

from config.charsets import with_known_charset
from config.request_bodies import Limits
from config.threaded_wsgi import ThreadedWSGI
from tests.config.echo import echo


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain; charset=hex",
        "text/plain; charset=undefined",
        "application/json; charset=nonsense",
        "text/plain; charset=utf-8",
    ],
)
def test_an_invalid_charset_does_not_fail(content_type):
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/_health",
        "QUERY_STRING": "a=%31",
        "CONTENT_TYPE": content_type,
        "wsgi.input": io.BytesIO(),
    }

    request = with_known_charset(lambda environ, _start: WSGIRequest(environ))(environ, print)

    assert request.GET["a"] == "1"


@pytest.mark.parametrize(
    ("status", "length", "limits"),
    [
        (408, 10, Limits(seconds=0.01)),
        (413, 101, Limits(body=100)),
        (503, 100, Limits(small=1, budget=50)),
        (500, 0, Limits()),
        (200, 0, Limits()),
    ],
)
def test_what_the_server_answers_without_django_is_counted(status, length, limits):
    application = ThreadedWSGI(echo, threads=1, limits=limits)
    sent: list[dict[str, Any]] = []

    async def receive():
        if status == 408:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"x" * length}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/fails" if status == 500 else "/",
        "query_string": b"",
        "http_version": "1.1",
        "scheme": "http",
        "headers": [(b"content-length", b"%d" % length)] if length else [],
    }
    name, labels = "tollgate_web_answered_before_django_total", {"status": str(status)}
    before = REGISTRY.get_sample_value(name, labels) or 0
    asyncio.run(application(scope, receive, send))
    assert sent[0]["status"] == status
    counted = (REGISTRY.get_sample_value(name, labels) or 0) - before
    assert counted == (status != 200)

"""The WSGI application, as a web server calls it."""

import http.client
import io
import sys

import pytest
from django.core.handlers.wsgi import WSGIRequest

from config.charsets import with_known_charset
from devstack.commands import WEB
from devstack.servers import Program, answers, free_port
from tests.conftest import running


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


def test_idle_connections_do_not_block_other_clients(tmp_path):
    """Every gateway keeps a connection open and polls on it four times a second."""
    port = free_port()
    argv = [sys.executable, "-m", *WEB, "--port", str(port)]
    web = Program("web", argv, lambda: answers(f"http://127.0.0.1:{port}/_health"))
    with running(web, tmp_path / "web.log"):
        kept = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(100)]
        for connection in kept:
            connection.request("GET", "/_health")
            answer = connection.getresponse()
            assert (answer.status, answer.read() != b"") == (200, True)
        for connection in kept:
            connection.close()

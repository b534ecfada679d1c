"""The application as a web server calls it."""

import io

import pytest
from django.core.handlers.wsgi import WSGIRequest

from config.charsets import with_known_charset


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain; charset=hex",
        "text/plain; charset=undefined",
        "application/json; charset=nonsense",
        "text/plain; charset=utf-8",
    ],
)
def test_a_charset_that_is_none_is_no_failure(content_type):
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/_health",
        "QUERY_STRING": "a=%31",
        "CONTENT_TYPE": content_type,
        "wsgi.input": io.BytesIO(),
    }

    request = with_known_charset(lambda environ, _start: WSGIRequest(environ))(environ, print)

    assert request.GET["a"] == "1"

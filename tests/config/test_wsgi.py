"""The application as a web server calls it."""

import io

import pytest
from django.core.handlers.wsgi import WSGIHandler

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
def test_a_charset_that_is_none_is_no_failure(client, content_type):
    statuses = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/_health",
        "QUERY_STRING": "a=%31",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "CONTENT_TYPE": content_type,
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
    }

    answer = with_known_charset(WSGIHandler())(
        environ, lambda status, headers: statuses.append(status)
    )

    answer.close()
    assert statuses == ["200 OK"]

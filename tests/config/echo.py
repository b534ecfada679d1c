"""A WSGI application that echoes the request, served like the product's own."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from config.request_bodies import Limits
from config.threaded_wsgi import ThreadedWSGI


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/fails":
        raise RuntimeError("on purpose")
    body = environ["wsgi.input"].read()
    seen = {name: value for name, value in environ.items() if isinstance(value, str)}
    start_response("200 OK", [("Content-Type", "application/json"), ("Set-Cookie", "a=b")])
    return [json.dumps({"environ": seen, "body": body.decode("latin-1")}).encode()]


application = ThreadedWSGI(
    echo, threads=2, limits=Limits(body=1_000_000, small=1_000, budget=100_000)
)

"""The HTTP server against gunicorn's corpus of raw requests, its answers read by h11.

`http_corpus.json` has the cases of gunicorn's own tests (MIT licence, included there) that do not
change gunicorn's configuration: what a server must accept, and what it must refuse, among them
smuggled requests (RFC 9112, 11.2). Each case is sent twice, at once and byte by byte.
"""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import pytest

from gateway.network.incoming import Incoming
from tests.gateway.threads import AsgiThread, served_by

CORPUS = json.loads(Path(__file__).with_name("http_corpus.json").read_text())
CASES = {case["name"]: case for case in CORPUS["cases"]}
MOST = 1 << 20

# Where this server differs from gunicorn, and why it may.
REFUSED_HERE = {
    "valid/013": "llhttp refuses whitespace in chunk extensions, which nobody sends",
    "valid/031": "llhttp knows the registered methods only",
    "valid/099": "its body is shorter than its Content-Length says",
    "valid/rfc9112_target_authority_connect_01": "a gateway makes no tunnels",
    "valid/rfc9112_target_authority_ipv6_01": "a gateway makes no tunnels",
}
ANSWERED_HERE = {
    "valid/022": 1,  # connections of HTTP/1.0 clients are not kept
}
OTHER_HEADERS_HERE = {
    "valid/040": "names with underscores are kept, because nothing turns them into CGI variables",
}
ACCEPTED_HERE = {
    "invalid/006": "the limit is 64 KB for the whole head",
    "invalid/007": "the limit is 64 KB for the whole head",
    "invalid/008": "the limit is 64 KB for the whole head",
    "invalid/017": "the limit is 64 KB for the whole head",
    "invalid/009": "the limit is 200 headers",
    "invalid/041": "the application checks every Content-Type",
    "invalid/chunked_05": "HTTP/1.0 with chunks: its connection is closed after it (RFC 9112, 6.1)",
    "invalid/rfc9110_trailer_forbidden_host_01": "trailers are dropped",
    "invalid/rfc9112_leading_crlf_02": "any number of empty lines before a request is ignored",
    "invalid/rfc9112_target_asterisk_non_options_01": "the application knows no such path",
}


@dataclass
class Recorder:
    """An application that keeps every request whose body it received whole."""

    seen: list[dict[str, Any]] = field(default_factory=list)

    async def serve(self, request: Incoming) -> None:
        body = await request.body(MOST)
        self.seen.append(
            {
                "method": request.method,
                "path": request.path,
                "query": request.query.decode("latin-1"),
                "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in request.headers],
                "body": body.decode("latin-1"),
            }
        )
        request.start(200, [])
        request.end(b"seen")


@pytest.fixture(scope="module")
def recorder() -> Iterator[tuple[Recorder, AsgiThread]]:
    application = Recorder()
    with served_by(application.serve) as server:
        yield application, server


@contextmanager
def sending(port: int, sent: bytes, size: int) -> Iterator[socket.socket]:
    """Send in pieces of this size, as far as the server reads them."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):
            for at in range(0, len(sent), size):
                connection.sendall(sent[at : at + size])
        yield connection


def statuses(connection: socket.socket, methods: list[str]) -> list[int]:
    """Return the statuses of the answers to requests with these methods, until the end if fewer.

    Raises `h11.RemoteProtocolError` if an answer is not valid HTTP.
    """
    found: list[int] = []
    rest = b""
    for method in methods:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        if rest:  # h11 takes nothing for the end
            client.receive_data(rest)
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                try:
                    data = connection.recv(65536)
                except ConnectionError:
                    return found
                if not data and client.their_state is h11.SEND_RESPONSE:
                    return found
                client.receive_data(data)
            elif isinstance(event, h11.Response):
                found.append(event.status_code)
            else:
                assert isinstance(event, h11.Data)
        rest = client.trailing_data[0]
    assert rest == b"", "an answer without a request"
    return found


def with_host(case: dict[str, Any]) -> bytes:
    """Return what to send, with a Host header in each request that has none.

    gunicorn does not ask for one. In a malformed case, only the first request gets one.
    """
    sent: str = case["sent"]
    at = 0
    for _ in case.get("requests", [None]):
        line = re.compile(r" HTTP/1\.(.)\r\n").search(sent, at)
        if line is None:
            break
        at = line.end()
        head = sent[line.start() : sent.find("\r\n\r\n", line.start()) + 2]
        if line[1] == "1" and "\r\nhost:" not in head.lower():
            sent = sent[:at] + "Host: corpus\r\n" + sent[at:]
    return sent.encode("latin-1")


def cases(kind: str) -> list[str]:
    return [name for name in CASES if name.startswith(kind)]


@pytest.mark.parametrize("size", [1 << 20, 1], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", cases("valid"))
def test_a_valid_request_is_understood(name: str, size: int, recorder) -> None:
    application, server = recorder
    application.seen.clear()
    sent = with_host(CASES[name])
    if name in REFUSED_HERE:
        refused(recorder, sent, size)
        return
    expected = CASES[name]["requests"]
    expected = expected[: ANSWERED_HERE.get(name, len(expected))]
    with sending(server.port, sent, size) as connection:
        answered = statuses(connection, [each["method"] for each in expected])
    assert answered == [200] * len(expected)
    assert len(application.seen) == len(expected)
    for seen, each in zip(application.seen, expected, strict=True):
        assert (seen["method"], seen["body"]) == (each["method"], each["body"])
        headers = [header for header in seen["headers"] if header != ["host", "corpus"]]
        if name not in OTHER_HEADERS_HERE:
            assert headers == each["headers"]


@pytest.mark.parametrize("size", [1 << 20, 1], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", cases("invalid"))
def test_an_invalid_request_reaches_no_application(name: str, size: int, recorder) -> None:
    application, server = recorder
    application.seen.clear()
    sent = with_host(CASES[name])
    if name in ACCEPTED_HERE:
        with sending(server.port, sent, size) as connection:
            assert statuses(connection, ["GET"]) == [200]
    else:
        refused(recorder, sent, size)


def refused(recorder: tuple[Recorder, AsgiThread], sent: bytes, size: int) -> None:
    """Expect that nothing but a refusal comes of these bytes, even if more could follow them."""
    application, server = recorder
    with sending(server.port, sent, size) as connection:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        assert statuses(connection, ["GET", "GET"]) in ([], [400])
    assert application.seen == []


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n",
    ],
    ids=["missing", "twice", "twice in HTTP/1.0"],
)
def test_a_request_names_its_host_once(sent: bytes, recorder) -> None:
    recorder[0].seen.clear()
    with sending(recorder[1].port, sent, len(sent)) as connection:
        assert statuses(connection, ["GET"]) == [400]
    assert recorder[0].seen == []

"""The web server as `make up` starts it, and clients that are slow on purpose."""

import http.client
import json
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection

from devstack.commands import WEB
from devstack.servers import Program, answers, free_port
from tests.conftest import running, wait_until
from tests.stopwatch import Stopwatch

BODY_TIMEOUT = 2
HEAD_TIMEOUT = 2
EVENTS = "/slack/events/"


@contextmanager
def web_server(log: Path, *options: str, application: str = WEB[-1]) -> Iterator[int]:
    """Run the server until the block ends; provide its port."""
    port = free_port()
    argv = [sys.executable, "-m", *WEB[:-1], application, "--port", str(port), *options]
    program = Program("web", argv, lambda: answers(f"http://127.0.0.1:{port}/_health"))
    with running(program, log):
        yield port


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a web server with short deadlines."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WEB_BODY_TIMEOUT", str(BODY_TIMEOUT))
        environment.setenv("NUM_PROXIES", "1")
        timeout = ("--http1-header-read-timeout", str(HEAD_TIMEOUT * 1000))
        with web_server(tmp_path_factory.mktemp("web") / "web.log", *timeout) as port:
            yield port


@pytest.fixture(scope="module")
def patient_port(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A web server with the usual deadlines, the test database, and one proxy in front of it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NUM_PROXIES", "1")
        environment.setenv("DJANGO_SETTINGS_MODULE", "config.settings")
        environment.setenv("DATABASE_URL", database_url())
        with web_server(tmp_path_factory.mktemp("patient") / "web.log") as port:
            yield port


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def connect(clients: ExitStack, port: int, sent: bytes = b"") -> socket.socket:
    client = clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
    client.sendall(sent)
    return client


def slow_body(
    clients: ExitStack, port: int, framing: str = "Content-Length: 1000"
) -> socket.socket:
    head = f"POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n"
    return connect(clients, port, head.encode() + (b"x" if "Length" in framing else b"1\r\nx\r\n"))


def request(
    port: int, method: str = "POST", path: str = EVENTS, body: bytes = b"{}", **headers: str
) -> tuple[int, float]:
    """Return the status of an answer, and how many seconds it took."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        with Stopwatch() as waited:
            client.request(method, path, body, {"Host": "localhost", **headers})
            with client.getresponse() as answer:
                answer.read()
        return answer.status, waited.seconds
    finally:
        client.close()


def is_closed(client: socket.socket) -> bool:
    """Return whether the server closed the connection; waits a moment for it."""
    client.settimeout(0.05)
    try:
        while client.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("count", [16, 64, 300])
def test_slow_bodies_hold_up_nobody(port, clients, count, framing):
    for _ in range(count):
        slow_body(clients, port, framing)
    for _ in range(5):
        status, seconds = request(port)
        assert status == 401  # unsigned
        assert seconds < 5  # the slow bodies are waited for much longer


def test_a_body_that_trickles_in_is_cut_off_at_the_deadline(port, clients):
    client = slow_body(clients, port)
    client.settimeout(0.2)
    answer = b""
    with Stopwatch() as waited:
        while not answer:
            try:
                client.sendall(b"x")
                answer = client.recv(4096)
            except TimeoutError:
                assert waited.seconds < BODY_TIMEOUT + 10
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert waited.seconds > BODY_TIMEOUT - 1
    wait_until(lambda: is_closed(client), 10, "the connection being closed")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: local", b"POST"])
def test_a_connection_that_sends_no_request_ends(port, clients, sent):
    client = connect(clients, port, sent)
    wait_until(lambda: is_closed(client), HEAD_TIMEOUT + 10, "the connection being closed")


def test_a_head_that_trickles_in_is_cut_off_at_the_deadline(port, clients):
    client = connect(clients, port, b"GET /_health HTTP/1.1\r\nHost: localhost\r\n")

    def cut_off() -> bool:
        try:
            client.sendall(b"X-A: b\r\n")
        except OSError:
            return True
        return is_closed(client)

    wait_until(cut_off, HEAD_TIMEOUT + 10, "the connection being closed")


def test_a_connection_that_stays_idle_after_its_answer_ends(port, clients):
    client = connect(clients, port, b"GET /_health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.recv(4096).startswith(b"HTTP/1.1 200")
    wait_until(lambda: is_closed(client), HEAD_TIMEOUT + 10, "the connection being closed")


def test_eleven_hundred_idle_connections_hold_up_nobody(patient_port, clients):
    for number in range(1_100):
        connect(clients, patient_port, b"" if number % 2 else b"GET / HT")
    status, seconds = request(patient_port)
    assert status == 401
    assert seconds < 1


def test_a_hundred_connections_that_are_kept_open_are_all_answered(patient_port):
    """Every gateway keeps a connection open and polls on it four times a second."""
    kept = [http.client.HTTPConnection("127.0.0.1", patient_port, timeout=60) for _ in range(100)]
    for client in kept:
        client.request("GET", "/_health")
        answer = client.getresponse()
        assert (answer.status, answer.read() != b"") == (200, True)
    for client in kept:
        client.close()


def test_requests_sent_in_one_piece_are_answered_in_turn(port, clients):
    one = b"GET /_health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    client = connect(clients, port, one * 5)
    client.settimeout(10)
    seen = b""
    while seen.count(b"HTTP/1.1 200") < 5:
        seen += client.recv(65_536)


def test_a_body_beyond_the_bound_is_refused_at_once(port, clients):
    client = slow_body(clients, port, "Content-Length: 100000000")
    assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_beyond_the_bound_is_refused(port, clients):
    head = f"POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = connect(clients, port, head.encode())
    piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    try:
        for _ in range(20):
            client.sendall(piece)
    except ConnectionError:
        pass  # it closed without reading the rest
    else:
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_of_ten_megabytes_is_read(port):
    status, _ = request(port, path="/api/usage_events/", body=b" " * 10_000_000)
    assert status == 401


# --- What the application sees -------------------------------------------------------------------


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The server over an application that answers with what it was asked."""
    log = tmp_path_factory.mktemp("echo") / "web.log"
    with web_server(log, application="tests.config.echo:application") as port:
        yield port


def asked(clients: ExitStack, port: int, raw: str, body: str = "") -> dict[str, Any]:
    """Send a request as it stands; return what the application saw."""
    client = connect(clients, port, raw.replace("\n", "\r\n").encode("latin-1"))
    client.sendall(body.encode("latin-1"))
    with http.client.HTTPResponse(client) as answer:
        answer.begin()
        assert answer.status == 200
        seen: dict[str, Any] = json.loads(answer.read())
    return seen


@pytest.mark.parametrize(
    "name",
    [
        *("X_Forwarded_For", "X-Forwarded_For", "x_forwarded_for", "X_FORWARDED_FOR"),
        *("X_Forwarded_Proto", "X_Slack_Signature", "X_Slack_Request_Timestamp"),
        *("Content_Length", "Content_Type", "Authorization_", "_"),
    ],
)
@pytest.mark.parametrize("beside", ["", "X-Forwarded-For: 198.51.100.7\n"])
def test_a_header_with_an_underscore_is_never_taken_for_one_with_a_hyphen(
    clients, echo, name, beside
):
    raw = f"GET / HTTP/1.1\nHost: localhost\n{name}: 203.0.113.9\n{beside}{name}: 203.0.113.9\n\n"
    environ = asked(clients, echo, raw)["environ"]
    assert "203.0.113.9" not in environ.values()
    assert environ.get("HTTP_X_FORWARDED_FOR") == ("198.51.100.7" if beside else None)


def test_a_header_that_is_sent_twice_is_joined_in_order(clients, echo):
    raw = "GET / HTTP/1.1\nHost: h\nX-Forwarded-For: 1.1.1.1\nX-Forwarded-For: 2.2.2.2\n"
    raw += "Cookie: a=1\nCookie: b=2\n\n"
    environ = asked(clients, echo, raw)["environ"]
    assert environ["HTTP_X_FORWARDED_FOR"] == "1.1.1.1,2.2.2.2"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"


def test_paths_and_queries_arrive_as_wsgi_has_them(clients, echo):
    raw = "GET /caf%C3%A9/%ff%2F?q=%C3%A9&x=1 HTTP/1.1\nHost: localhost:80\n\n"
    environ = asked(clients, echo, raw)["environ"]
    assert environ["PATH_INFO"] == "/cafÃ©/ÿ/"
    assert environ["QUERY_STRING"] == "q=%C3%A9&x=1"
    assert (environ["REQUEST_METHOD"], environ["HTTP_HOST"]) == ("GET", "localhost:80")
    assert environ["REMOTE_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("Content-Length: 5", "hello"),
        ("Transfer-Encoding: chunked", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    ],
)
def test_a_body_arrives_whole_with_its_length(clients, echo, framing, body):
    seen = asked(clients, echo, f"POST / HTTP/1.1\nHost: h\n{framing}\n\n", body)
    assert seen["body"] == "hello"
    assert seen["environ"]["CONTENT_LENGTH"] == "5"
    assert "HTTP_TRANSFER_ENCODING" not in seen["environ"]


def test_an_application_that_fails_is_a_500_and_the_next_request_is_answered(echo):
    assert request(echo, path="/fails")[0] == 500
    assert request(echo, path="/")[0] == 200


def test_large_bodies_share_a_budget_and_small_ones_need_none(clients, echo):
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 50000\r\n\r\n"
    four = [connect(clients, echo, head + b"x" * 49_000) for _ in range(4)]
    wait_until(lambda: len(select.select(four, [], [], 0)[0]) == 2, 10, "two being refused")
    assert request(echo, body=b"x" * 50_000)[0] == 503
    assert request(echo, body=b"x" * 900)[0] == 200
    clients.close()
    wait_until(lambda: request(echo, body=b"x" * 50_000)[0] == 200, 10, "room again")


def test_nobody_gets_more_log_in_attempts_by_a_header_with_underscores(
    transactional_db, redis_client, patient_port
):
    statuses = [log_in(patient_port, "nobody", f"203.0.113.{number}") for number in range(7)]
    assert statuses == [200] * 5 + [429] * 2


def log_in(port: int, name: str, claimed: str) -> int:
    """Log in through one proxy with a header that claims another address; return the status."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    behind = {"X-Forwarded-For": "198.51.100.7", "X_Forwarded_For": claimed}
    client.request("GET", "/admin/login/", headers=behind)
    with client.getresponse() as answer:
        answer.read()
    token = SimpleCookie(answer.headers["Set-Cookie"])["csrftoken"].value
    form = urlencode({"username": name, "password": "wrong", "csrfmiddlewaretoken": token})
    form_type = "application/x-www-form-urlencoded"
    sent = behind | {"Cookie": f"csrftoken={token}", "Content-Type": form_type}
    client.request("POST", "/admin/login/", form, sent)
    with client.getresponse() as answer:
        answer.read()
    client.close()
    return answer.status


def database_url() -> str:
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    return f"postgres://postgres@127.0.0.1:{database['PORT']}/{database['NAME']}"

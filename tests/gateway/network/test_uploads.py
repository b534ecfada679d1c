"""Refusals before a body is read, and the budget for bodies."""

import json
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.conftest import wait_until
from tests.gateway.conftest import DENIED, World, messages_body, world_of
from tests.gateway.fake_provider import SSE_HEADERS, Script, default_script, messages_stream

LARGEST = 400_000
BUDGET = 700_000
PER_MINUTE = 30


@pytest.fixture(scope="module")
def _narrow() -> Iterator[World]:
    with world_of(
        GATEWAY_MAX_BODY_BYTES=str(LARGEST),
        GATEWAY_BODY_BUDGET=str(BUDGET),
        GATEWAY_REQUESTS_PER_MINUTE=str(PER_MINUTE),
    ) as world:
        yield world


@pytest.fixture
def narrow(_narrow: World) -> Iterator[World]:
    """A gateway with a small budget for bodies."""
    yield _narrow
    _narrow.provider.script = default_script


def body_of(size: int, **fields: object) -> bytes:
    return json.dumps(messages_body(system="x" * size, **fields)).encode()


def begin(world: World, token: str, body: bytes, sent: int, key: str = "") -> socket.socket:
    """Announce a body and send its first bytes."""
    head = (
        f"POST /slack_app/v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        f"idempotency-key: {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", world.port), timeout=60)
    connection.sendall(head.encode() + body[:sent])
    return connection


def answer(connection: socket.socket) -> bytes:
    """Return the beginning of what comes back."""
    received = b""
    while b"\r\n\r\n" not in received or received.endswith(b"\r\n\r\n"):
        received += connection.recv(65536)
    return received


def test_a_team_known_to_be_limited_is_refused_before_its_upload(narrow: World) -> None:
    project = narrow.tollgate.project(credits=10_000)
    token = narrow.tollgate.token(project)
    narrow.tollgate.limit(project)
    wait_until(lambda: narrow.post(token).status_code == DENIED, what="the limit being known")
    body = body_of(300_000)
    with begin(narrow, token, body, 10) as connection:
        refused = answer(connection)
    assert refused.startswith(b"HTTP/1.1 %d " % DENIED)
    assert b'"reason":"billable_credits"' in refused
    narrow.tollgate.lift(project)
    wait_until(lambda: narrow.post(token).status_code == 200, what="the limit being lifted")
    with begin(narrow, token, body, 10) as connection:
        connection.sendall(body[10:])
        assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_a_limited_teams_upload_is_read_only_if_its_key_is_in_use(narrow: World) -> None:
    project = narrow.tollgate.project(credits=10_000)
    token, body = narrow.tollgate.token(project), body_of(300_000)
    known, new = uuid.uuid4().hex, uuid.uuid4().hex
    first = narrow.post(token, body=body, headers={"Idempotency-Key": known})
    narrow.tollgate.limit(project)
    wait_until(lambda: narrow.post(token).status_code == DENIED, what="the limit being known")
    with begin(narrow, token, body, 10, key=new) as connection:
        assert answer(connection).startswith(b"HTTP/1.1 %d " % DENIED)
    with begin(narrow, token, body, 10, key=known) as connection:
        connection.sendall(body[10:])
        assert answer(connection).endswith(first.content)


def test_a_throttled_token_is_refused_before_its_upload(narrow: World) -> None:
    token = narrow.tollgate.token(narrow.tollgate.project(credits=10_000))
    body = body_of(300_000)
    refused = b""

    def is_refused() -> bool:
        """Return whether an upload is refused. It is not if the token bucket refilled meanwhile."""
        nonlocal refused
        while narrow.post(token).status_code == 200:
            pass
        with begin(narrow, token, body, 10) as connection:
            connection.settimeout(1)
            with suppress(TimeoutError):
                refused = answer(connection)
        return bool(refused)

    wait_until(is_refused, what="an upload being refused")
    assert refused.startswith(b"HTTP/1.1 429 ")
    assert b'"reason":"requests_per_minute"' in refused


@pytest.mark.parametrize("token", [None, "phx_unknown"])
def test_an_unknown_token_is_refused_before_the_upload(narrow: World, token: str | None) -> None:
    with begin(narrow, token or "", body_of(300_000), 10) as connection:
        assert answer(connection).startswith(b"HTTP/1.1 401 ")


def kept(world: World, size: int) -> None:
    """Wait until this many bytes of bodies are kept."""
    wait_until(lambda: world.metric("tollgate_gateway_body_bytes") == size, what=f"{size} kept")


@pytest.mark.case("G17")
def test_bodies_beyond_the_budget_are_asked_to_retry(narrow: World) -> None:
    tokens = [narrow.tollgate.token(narrow.tollgate.project(credits=10_000)) for _ in range(3)]
    body = body_of(300_000)
    reason = 'tollgate_gateway_refusals_total{product="slack_app",reason="too_many_bodies"}'
    with begin(narrow, tokens[0], body, 280_000) as first:
        kept(narrow, 280_000)
        with begin(narrow, tokens[1], body, 280_000) as second:
            kept(narrow, 560_000)
            with begin(narrow, tokens[2], body, 280_000) as third:
                refused = answer(third)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in refused
            assert narrow.metric(reason) >= 1
            second.sendall(body[280_000:])
            assert answer(second).startswith(b"HTTP/1.1 200 ")
        first.sendall(body[280_000:])
        assert answer(first).startswith(b"HTTP/1.1 200 ")
    assert narrow.post(tokens[2], body=body).status_code == 200, "what was kept was let go"
    kept(narrow, 0)


def test_one_token_cannot_fill_the_body_budget(narrow: World) -> None:
    token, other = [narrow.tollgate.token(narrow.tollgate.project(credits=10_000)) for _ in "ab"]
    body = body_of(300_000)
    with begin(narrow, token, body, 280_000) as first:
        kept(narrow, 280_000)
        with begin(narrow, token, body, 280_000) as second:
            refused = answer(second)
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nretry-after: 1\r\n" in refused
        assert b'"reason":"too_many_bodies"' in refused
        assert narrow.post(other, body=body).status_code == 200
        first.sendall(body[280_000:])
        assert answer(first).startswith(b"HTTP/1.1 200 ")
    assert narrow.post(token, body=body).status_code == 200, "what was kept was let go"


def test_a_body_is_released_once_the_provider_has_it(narrow: World) -> None:
    release = threading.Event()
    narrow.provider.script = lambda _: Script(
        200, SSE_HEADERS, messages_stream(), hold_after=4, release=release
    )
    token = narrow.tollgate.token(narrow.tollgate.project(credits=10_000))
    body = body_of(300_000, stream=True)
    with begin(narrow, token, body, len(body)) as first:
        assert answer(first).startswith(b"HTTP/1.1 200 ")
        narrow.provider.script = default_script
        assert narrow.post(token, body=body_of(300_000)).status_code == 200
        release.set()


def test_leaving_during_an_upload_releases_the_body(narrow: World) -> None:
    token = narrow.tollgate.token(narrow.tollgate.project(credits=10_000))
    body = body_of(300_000)
    for _ in range(4):
        begin(narrow, token, body, 200_000).close()
    wait_until(
        lambda: narrow.post(token, body=body).status_code == 200, what="there being room again"
    )

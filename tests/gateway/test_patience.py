"""How long the gateway waits, and what it answers and books after a timeout."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import httpx
import pytest

from devstack.servers import free_port
from gateway import upstream
from gateway.errors import Refusal
from tests.gateway.bodies import CHAT, chat_body
from tests.gateway.conftest import ROOT, World, messages_body, world_of
from tests.gateway.fake_provider import (
    SSE_HEADERS,
    Script,
    default_script,
    messages_stream,
)


@pytest.fixture(scope="module")
def _impatient() -> Iterator[World]:
    with world_of(
        GATEWAY_CONNECT_TIMEOUT="0.5",
        GATEWAY_FIRST_BYTE_TIMEOUT="1",
        GATEWAY_IDLE_TIMEOUT="1",
        GATEWAY_REQUEST_TIMEOUT="1",
        OPENAI_UPSTREAM_URL=f"http://127.0.0.1:{free_port()}",
    ) as world:
        yield world


@pytest.fixture
def impatient(_impatient: World) -> Iterator[World]:
    """A gateway that waits for one second. Its OpenAI address does not exist."""
    _impatient.provider.script = default_script
    yield _impatient
    _impatient.provider.script = default_script


@pytest.mark.case("G13")
def test_a_call_whose_answer_never_begins_is_booked_at_its_bound(impatient: World) -> None:
    gate = threading.Event()
    impatient.provider.script = lambda _: Script(200, {}, [b"{}"], gate=gate)
    project = impatient.tollgate.project(credits=100)
    answer = impatient.post(impatient.tollgate.token(project))
    gate.set()
    assert answer.status_code == 504
    assert answer.json()["error"]["reason"] == "provider_timeout"
    [event] = impatient.booked(project)
    assert event["properties"]["$ai_usage_estimated"] is True
    assert event["debited_micro"] > 72_000
    assert impatient.settled(project)["held"] == 0


@pytest.mark.case("G13")
def test_a_stalled_stream_is_broken_off_and_booked_as_far_as_it_came(impatient: World) -> None:
    release = threading.Event()
    impatient.provider.script = lambda _: Script(
        200, SSE_HEADERS, messages_stream(), hold_after=4, release=release
    )
    project = impatient.tollgate.project(credits=100)
    with pytest.raises(httpx.RemoteProtocolError):
        impatient.post(impatient.tollgate.token(project), body=messages_body(stream=True))
    release.set()
    [event] = impatient.booked(project)
    properties = event["properties"]
    assert (properties["$ai_usage_estimated"], properties["$ai_input_tokens"]) == (True, 100)
    assert 0 < event["debited_micro"] < 72_000


@pytest.mark.case("G17")
def test_a_caller_that_does_not_finish_its_request_gets_408(impatient: World) -> None:
    token = impatient.tollgate.token(impatient.tollgate.project(credits=100))
    head = (
        f"POST /slack_app/v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        "content-length: 1000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=10) as connection:
        connection.sendall(head.encode() + b'{"model":')
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_an_unreachable_provider_is_not_called_for_a_while(impatient: World) -> None:
    project = impatient.tollgate.project(credits=100)
    token = impatient.tollgate.token(project)
    statuses = [impatient.post(token, CHAT, chat_body()).status_code for _ in range(7)]
    assert statuses == [502] * upstream.FAILURES_TO_OPEN + [503] * 2
    refused = impatient.post(token, CHAT, chat_body())
    assert refused.json()["error"]["reason"] == "provider_unreachable"
    assert int(refused.headers["retry-after"]) > 0
    assert impatient.post(token).status_code == 200, "the other provider is there"
    events = impatient.booked(project, upstream.FAILURES_TO_OPEN + 1)
    *tried, answered = sorted(events, key=lambda event: event["debited_micro"])
    assert answered["debited_micro"] == 72_000
    for event in tried:
        properties = event["properties"]
        assert (event["debited_micro"], properties["$ai_total_cost_usd"]) == (0, "0")
        assert (properties["$ai_is_error"], properties["$ai_http_status"]) == (True, None)
    assert impatient.settled(project)["held"] == 0


def test_after_a_while_one_call_tries_and_the_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(upstream.time, "monotonic", lambda: now)
    breaker = upstream.Breaker()
    for _ in range(upstream.FAILURES_TO_OPEN):
        breaker.check("openai")
        breaker.failed()
    with pytest.raises(Refusal):
        breaker.check("openai")
    now += upstream.OPEN_SECONDS
    breaker.check("openai")
    with pytest.raises(Refusal):
        breaker.check("openai")
    breaker.succeeded()
    breaker.check("openai")


def test_the_gateway_imports_nothing_from_other_folders() -> None:
    """It does not even import the packages that the other folders use."""
    look = (
        "import sys, gateway.__main__, gateway.app;"
        "import gateway.network.server, gateway.tracing.opentelemetry;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True
    )
    others = {"django", "rest_framework", "celery", "temporalio", "slack_sdk", "redis", "psycopg"}
    folders = {
        "config",
        "console",
        "slack_bot",
        "workflows",
        "coding_tasks",
        "billing",
        "quota",
        "projects",
    }
    assert not (others | folders) & set(loaded.stdout.split())

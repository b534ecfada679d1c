"""Socket Mode: the same answers as over HTTP, and a connection that is always there."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.http import HttpResponse, JsonResponse
from django.utils import timezone

from devstack.demo_slack import events as demo_events
from projects.models import SlackWorkspace
from slack_bot.models import SlackArrival, SlackSocket
from slack_bot.socket_mode import backoff, envelopes, listener, metrics
from slack_bot.socket_mode.connection import Connection
from slack_bot.socket_mode.listener import Listener
from slack_bot.socket_mode.reports import listening
from tests.conftest import wait_until
from tests.fakes import FakeSlack
from tests.quota.published.test_reconciler import address_of_the_test_database
from workflows.models import Mention
from workflows.slack import picker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_client")]


@pytest.fixture
def socket_slack(slack: FakeSlack, workspace, out_of_credits) -> FakeSlack:
    """A Slack in Socket Mode, in which every mention is refused without a workflow."""
    slack.use_socket_mode()
    return slack


@contextmanager
def listeners(
    slack: FakeSlack, count: int = 1, token: str = "", others: int = 0
) -> Iterator[list[Listener]]:
    """Listen with several listeners until the block ends, each of which has a thread."""
    made = [Listener(token or slack.use_socket_mode()) for _ in range(count)]
    threads = [threading.Thread(target=each.run) for each in made]
    for thread in threads:
        thread.start()
    try:
        if not token:
            wait_until(lambda: len(slack.slack.sockets) == count, what="the connection")
        yield made
    finally:
        for each in made:
            each.stop()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
    assert len(slack.slack.sockets) == others


@pytest.fixture
def hasty(monkeypatch) -> None:
    """Slack redelivers soon, and attempts to connect follow each other fast."""
    monkeypatch.setattr(demo_events, "ANSWER_WITHIN", 1.0)
    monkeypatch.setattr(backoff, "FIRST", 0.02)


def kept(slack: FakeSlack, *messages: dict[str, Any]) -> None:
    """Wait until these mentions are recorded, and Slack has nothing left to deliver."""
    stamps = {message["ts"] for message in messages}
    wait_until(
        lambda: set(Mention.objects.values_list("ts", flat=True)) == stamps, what="the mentions"
    )
    wait_until(lambda: slack.slack.events.outbox.next_due() is None, what="the acknowledgements")


def opened(slack: FakeSlack) -> int:
    """Return how often an address for a connection was asked for."""
    return len(slack.calls("apps.connections.open"))


def problem() -> str:
    """Return why the one listener is not connected, as it last reported."""
    return SlackSocket.objects.values_list("problem", flat=True).first() or ""


def is_connected() -> bool:
    """Return whether the one listener reports that it is connected."""
    return SlackSocket.objects.filter(connected_since__isnull=False).exists()


# --- The same answers ----------------------------------------------------------------------------
def test_a_mention_is_kept_and_acknowledged(socket_slack):
    with listeners(socket_slack):
        kept(socket_slack, socket_slack.post())
    assert SlackArrival.objects.filter(way="socket", kind="events").exists()


def test_an_event_that_could_not_be_kept_comes_again(socket_slack, hasty, monkeypatch):
    take, failures = envelopes._ANSWERS["events_api"], iter([True, True])

    def fail_first(payload):
        if next(failures, False):
            raise OperationalError("the database is away")
        return take(payload)

    monkeypatch.setitem(envelopes._ANSWERS, "events_api", fail_first)
    with listeners(socket_slack):
        kept(socket_slack, socket_slack.post())


def test_a_bug_in_a_handler_is_not_acknowledged_and_ends_nothing(socket_slack, hasty, monkeypatch):
    take, failures = envelopes._ANSWERS["events_api"], iter([True])

    def fail_first(payload):
        if next(failures, False):
            raise KeyError("a bug")
        return take(payload)

    monkeypatch.setitem(envelopes._ANSWERS, "events_api", fail_first)
    with listeners(socket_slack):
        kept(socket_slack, socket_slack.post())
        assert opened(socket_slack) == 1


def test_what_http_would_refuse_is_not_acknowledged(socket_slack, monkeypatch):
    monkeypatch.setitem(
        envelopes._ANSWERS, "interactive", lambda _payload: HttpResponse("later", status=503)
    )
    request = envelopes.read({"envelope_id": "e1", "type": "interactive", "payload": {}})
    assert envelopes.acknowledge(request) is None


def test_a_command_is_answered_in_the_acknowledgement(socket_slack):
    interactions = socket_slack.slack.interactions
    with listeners(socket_slack):
        run(
            socket_slack,
            interactions.command(interactions.slash_command("C1", "U1", "/tollgate", "help")),
        )
    [answer] = socket_slack.ephemeral_messages()
    assert "/tollgate status" in answer["text"]
    assert SlackArrival.objects.filter(way="socket", kind="commands").exists()


def test_a_form_with_errors_says_so_in_the_acknowledgement(socket_slack, monkeypatch):
    wrong = {"response_action": "errors", "errors": {"amount": "Give a number."}}
    monkeypatch.setitem(envelopes._ANSWERS, "interactive", lambda payload: JsonResponse(wrong))
    interactions = socket_slack.slack.interactions
    with listeners(socket_slack):
        payload = interactions.view_submission("U1", {"callback_id": "x"}, {})
        assert run(socket_slack, interactions.submit(payload)) == {"amount": "Give a number."}


def test_a_search_for_repositories_gets_its_options_in_the_acknowledgement(
    socket_slack, workspace, repository
):
    message = socket_slack.post()
    with listeners(socket_slack):
        kept(socket_slack, message)
        block_id = picker.block_id(Mention.objects.get().pk)
        interactions = socket_slack.slack.interactions
        typed = interactions.block_suggestion(
            message, "C1", "U1", block_id, picker.ACTION_ID, "shop"
        )
        options = run(socket_slack, interactions.suggestions(typed))
    assert [option["text"]["text"] for option in options] == ["acme/shop"]


def test_the_end_of_an_installation_is_noticed(socket_slack, workspace):
    with listeners(socket_slack):
        socket_slack.slack.events.queue(socket_slack.event_of({"type": "app_uninstalled"}))
        wait_until(
            lambda: not SlackWorkspace.objects.get().is_active, what="the end of the installation"
        )


@pytest.mark.parametrize(
    "junk",
    [
        "not JSON",
        "[]",
        "null",
        '{"type": "events_api"}',
        '{"type": "events_api", "envelope_id": 7, "payload": {}}',
        '{"type": "events_api", "envelope_id": "e1"}',
        '{"type": "events_api", "envelope_id": "e1", "payload": null}',
        '{"type": ["x"], "envelope_id": "e1", "payload": "x"}',
        '{"type": "a new kind", "envelope_id": "e1", "payload": {}}',
        '{"type": "hello"}',
        '{"type": "disconnect_later"}',
    ],
)
def test_junk_ends_nothing(socket_slack, junk):
    with listeners(socket_slack):
        socket_slack.slack.sockets.say(junk)
        kept(socket_slack, socket_slack.post())
        assert opened(socket_slack) == 1


def test_several_listeners_share_the_events_without_doubles(socket_slack):
    with listeners(socket_slack, 3):
        kept(socket_slack, *(socket_slack.post() for _ in range(12)))
        wait_until(lambda: SlackSocket.objects.count() == 3, what="the reports of all")
    assert not SlackSocket.objects.exists()


# --- Staying connected ---------------------------------------------------------------------------
@pytest.mark.parametrize("reason", ["refresh_requested", "warning"])
def test_another_connection_is_opened_while_the_old_one_still_works(
    socket_slack, reason, monkeypatch
):
    with listeners(socket_slack):
        monkeypatch.setattr(backoff, "FIRST", 60.0)  # it is no failure, so there is no wait
        socket_slack.slack.sockets.announce(reason)
        wait_until(lambda: len(socket_slack.slack.sockets) == 2, 25, "the second connection")
        kept(socket_slack, *(socket_slack.post() for _ in range(4)))  # over both in turn


def test_a_replaced_connection_is_closed_after_a_while(socket_slack, monkeypatch):
    monkeypatch.setattr(listener, "OLD_CONNECTION_LASTS", 2.0)
    with listeners(socket_slack):
        socket_slack.slack.sockets.announce("warning")
        wait_until(lambda: len(socket_slack.slack.sockets) == 2, what="the second connection")
        wait_until(lambda: len(socket_slack.slack.sockets) == 1, what="the end of the first")


@pytest.mark.parametrize("end", ["cut", "close"])
def test_a_lost_connection_is_replaced_and_what_came_meanwhile_arrives(socket_slack, hasty, end):
    with listeners(socket_slack):
        getattr(socket_slack.slack.sockets, end)()
        message = socket_slack.post()
        wait_until(lambda: opened(socket_slack) > 1, what="the next attempt")
        kept(socket_slack, message)


def test_a_flapping_connection_is_not_opened_ever_faster(socket_slack, monkeypatch):
    monkeypatch.setattr(backoff, "FIRST", 0.2)
    with listeners(socket_slack):
        began = time.monotonic()
        for count in range(1, 4):
            socket_slack.slack.sockets.cut()
            wait_until(lambda count=count: opened(socket_slack) == count + 1, what="a reconnect")
            wait_until(lambda: len(socket_slack.slack.sockets) == 1, what="the connection")
        assert time.monotonic() - began > (0.2 + 0.4 + 0.8) / 2


@pytest.mark.parametrize("reason", ["link_disabled", "too_many_websockets"])
def test_a_connection_that_slack_does_not_want_is_not_opened_again_at_once(socket_slack, reason):
    with listeners(socket_slack):
        socket_slack.slack.sockets.announce(reason)
        socket_slack.slack.sockets.close()
        wait_until(lambda: problem() == reason, what="the report")
        assert not is_connected()
        assert opened(socket_slack) == 1


def test_an_eleventh_listener_is_told_that_there_are_too_many(socket_slack):
    token = socket_slack.use_socket_mode()
    with listeners(socket_slack, 10), ExitStack() as eleventh:
        eleventh.enter_context(listeners(socket_slack, token=token, others=10))
        refused = SlackSocket.objects.filter(problem="too_many_websockets")
        wait_until(refused.exists, what="the refusal")
        wait_until(lambda: len(listening(timezone.now())) == 11, what="everybody's report")
        assert len(socket_slack.slack.sockets) == 10


# `missing_scope`: the token lacks connections:write
@pytest.mark.parametrize("error", ["invalid_auth", "not_allowed_token_type", "missing_scope"])
def test_a_refused_token_is_reported_and_seldom_tried_again(socket_slack, error):
    socket_slack.fail_next("apps.connections.open", error, times=9)
    with listeners(socket_slack, token=socket_slack.use_socket_mode()):
        wait_until(lambda: problem() == error, what="the report")
        assert opened(socket_slack) == 1
    socket_slack.slack.faults.clear()


def test_a_bot_token_is_refused_as_slack_refuses_it(socket_slack):
    with listeners(socket_slack, token="xoxb-demo"):
        wait_until(lambda: problem() == "not_allowed_token_type", what="the report")


def test_slack_is_left_alone_for_as_long_as_it_asks(socket_slack, hasty):
    socket_slack.fail_next("apps.connections.open", "ratelimited", retry_after=1)
    began = time.monotonic()
    with listeners(socket_slack):
        assert opened(socket_slack) == 2
        assert time.monotonic() - began > 1


@pytest.mark.parametrize("error", ["internal_error", "fatal_error"])
def test_after_an_error_of_slack_itself_we_try_again_soon(socket_slack, hasty, error):
    socket_slack.fail_next("apps.connections.open", error, times=2)
    with listeners(socket_slack):
        assert opened(socket_slack) == 3


def test_a_slack_that_does_not_answer_is_tried_again(socket_slack, hasty, settings):
    real, settings.SLACK_API_URL = settings.SLACK_API_URL, "http://127.0.0.1:1/api/"
    with listeners(socket_slack, token=socket_slack.use_socket_mode()):
        wait_until(problem, what="the report")
        settings.SLACK_API_URL = real
        wait_until(lambda: len(socket_slack.slack.sockets) == 1, what="the connection")
        wait_until(is_connected, what="the next report")
        assert problem() == ""


@pytest.mark.parametrize("failures", [0, 1, 5, 10_000])
def test_waits_grow_up_to_a_minute_and_differ(failures):
    waits = [backoff.delay(failures) for _ in range(50)]
    most = min(2**failures, 60) if failures < 30 else 60
    assert all(most / 2 <= wait <= most for wait in waits)
    assert len(set(waits)) > 40


def test_a_wait_that_slack_asked_for_is_a_minimum():
    assert min(backoff.delay(0, retry_after=30) for _ in range(50)) >= 30


def test_a_refused_connection_is_tried_every_few_minutes():
    assert 150 <= backoff.delay(20, is_refusal=True) <= 300


# --- Stopping ------------------------------------------------------------------------------------
@pytest.fixture
def held(monkeypatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Two events: one is set when a handler has begun; it goes on when the other is set."""
    begun, go_on = threading.Event(), threading.Event()
    take: Callable[..., Any] = envelopes._ANSWERS["events_api"]

    def wait(payload):
        begun.set()
        go_on.wait(20)
        return take(payload)

    monkeypatch.setitem(envelopes._ANSWERS, "events_api", wait)
    yield begun, go_on
    go_on.set()


def test_what_was_begun_is_finished_and_acknowledged_before_the_end(
    socket_slack, held, monkeypatch
):
    begun, go_on = held
    acknowledged = metrics.ENVELOPES.labels(kind="events_api", outcome="acknowledged")._value
    before, take_no_more, close = acknowledged.get(), Connection.take_no_more, Connection.close
    when_closed: list[float] = []

    def take_no_more_and_let_the_handler_go_on(connection):
        take_no_more(connection)
        go_on.set()

    def note_and_close(connection):
        when_closed.append(acknowledged.get() - before)
        close(connection)

    monkeypatch.setattr(Connection, "take_no_more", take_no_more_and_let_the_handler_go_on)
    monkeypatch.setattr(Connection, "close", note_and_close)
    written = {"user": "U1", "text": "<@UBOT> please look", "team": "T1"}
    message = socket_slack.slack.workspace.add_message("C1", written)
    with listeners(socket_slack):
        socket_slack.slack.events.queue(socket_slack.event(message))
        assert begun.wait(20)
    assert when_closed == [1]
    kept(socket_slack, message)


def test_a_handler_that_hangs_does_not_hold_up_the_end_for_ever(socket_slack, held, monkeypatch):
    monkeypatch.setattr(listener, "GRACE", 0.2)
    begun, go_on = held
    made = Listener(socket_slack.use_socket_mode())
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(made.run()))
    thread.start()
    wait_until(lambda: len(socket_slack.slack.sockets) == 1, what="the connection")
    socket_slack.post()
    assert begun.wait(20)
    made.stop()
    thread.join(20)
    assert ended == [False]
    go_on.set()
    for worker in made._workers:  # they use the database
        worker.join(20)


@contextmanager
def process(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """Run `manage.py slack_socket` until the block ends."""
    with log.open("ab") as output:
        command = [sys.executable, "manage.py", "slack_socket"]
        started = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


@pytest.mark.slow
def test_a_process_serves_stops_and_loses_nothing_when_it_is_killed(
    socket_slack, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(demo_events, "ANSWER_WITHIN", 10.0)
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": address_of_the_test_database(),
        "SLACK_API_URL": socket_slack.api_url,
        "SLACK_APP_TOKEN": socket_slack.use_socket_mode(),
    }
    log = tmp_path / "sockets.log"
    sockets = socket_slack.slack.sockets
    with process(environment, log) as first, process(environment, log) as second:
        wait_until(lambda: len(sockets) == 2, what="two connections")
        messages = [socket_slack.post() for _ in range(4)]
        first.kill()
        kept(socket_slack, *messages)
        wait_until(lambda: len(sockets) == 1, what="the end of the first connection")
        second.terminate()
        assert second.wait(30) == 0, log.read_text()
    assert "xapp-" not in log.read_text()
    assert "Traceback" not in log.read_text()


def test_without_a_token_the_command_says_what_to_do(settings):
    settings.SLACK_APP_TOKEN = ""
    with pytest.raises(CommandError, match="connections:write"):
        call_command("slack_socket")


def run(slack: FakeSlack, action: Any) -> Any:
    """Run a coroutine of the fake Slack in its own loop."""
    return asyncio.run_coroutine_threadsafe(action, slack.slack.events._loop).result(20)

"""Concurrent copies of a post, and acknowledging within three seconds, whatever is slow."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from django.db import connection
from django.utils import timezone

from billing.allowances.limits import set_limit
from devstack.commands import WEB
from devstack.servers import answers, free_port
from quota.resources import AI_CREDITS
from tests.conftest import wait_until
from tests.slack_bot.conftest import FORM, REDELIVERIES, at_once, captured, workflow_of
from tests.stopwatch import Stopwatch
from workflows import tasks
from workflows.models import FollowUp, Mention, Notice, SlackPause

pytestmark = pytest.mark.django_db(transaction=True)
COPIES = 20


def copies_at_once(webhook, payload, copies: int = COPIES, path: str = "/slack/events/"):
    """Deliver copies of a payload at the same time; return the statuses."""
    content_type = "application/json" if path == "/slack/events/" else FORM
    request = webhook.slack.signed(path, payload, content_type=content_type)
    return at_once([request] * copies)


@pytest.mark.case("S15")
def test_twenty_concurrent_copies_start_one_workflow(webhook, workspace, temporal, ts):
    assert set(copies_at_once(webhook, captured("mention", ts=ts))) == {200}
    mention = Mention.objects.get()
    assert mention.state == "started"
    assert temporal.has(workflow_of({"ts": ts}))


@pytest.mark.case("S19")
def test_twenty_concurrent_copies_over_quota_get_one_denial(webhook, workspace, out_of_credits, ts):
    assert set(copies_at_once(webhook, captured("mention", ts=ts))) == {200}
    tasks.deliver_pending_notices()
    assert Mention.objects.get().state == "refused"
    assert len(webhook.slack.calls("chat.postMessage")) == 1


@pytest.mark.case("S24")
def test_twenty_concurrent_copies_of_a_reply_make_one_follow_up_and_one_signal(
    webhook, task, temporal
):
    payload = captured("reply_in_a_thread", thread_ts=task.thread_ts)
    assert set(copies_at_once(webhook, payload)) == {200}
    assert FollowUp.objects.get().state == "signalled"
    assert temporal.signals(task.workflow_id) == ["follow_up"]


def test_a_refusal_asks_a_worker_to_send_the_denial_at_once(
    webhook, workspace, out_of_credits, redis_client
):
    webhook.mention()
    [message] = redis_client.lrange("celery", 0, -1)
    assert "workflows.tasks.deliver_notice" in message


def test_a_worker_sends_the_denial_when_asked(webhook, workspace, out_of_credits):
    webhook.mention()
    tasks.deliver_notice(str(Notice.objects.get().pk))
    tasks.deliver_notice("00000000-0000-0000-0000-000000000000")
    assert len(webhook.slack.bot_messages("C1")) == 1


# --- Three seconds -------------------------------------------------------------------------------
@pytest.mark.case("S11")
def test_a_slack_that_hangs_delays_no_acknowledgement(webhook, workspace, temporal):
    webhook.slack.hang_next("*", 5, times=10)
    with Stopwatch() as waited:
        webhook.mention()
    assert waited.seconds < 3
    assert Mention.objects.get().state == "started"
    assert webhook.slack.calls() == []


@pytest.mark.case("S20")
def test_a_slack_that_hangs_delays_no_refusal_and_gets_the_denial_later(
    webhook, workspace, out_of_credits
):
    webhook.slack.hang_next("chat.postMessage", 5)
    with Stopwatch() as waited:
        webhook.mention()
    assert waited.seconds < 3
    assert webhook.slack.calls() == []
    webhook.slack.slack.faults.clear()
    tasks.deliver_pending_notices()
    assert len(webhook.slack.bot_messages("C1")) == 1


@pytest.mark.case("S20")
def test_a_slack_that_limits_us_gets_the_denial_later(webhook, workspace, out_of_credits):
    webhook.slack.fail_next("chat.postMessage", "ratelimited", retry_after=1)
    with Stopwatch() as waited:
        webhook.mention()
    assert waited.seconds < 3
    before = timezone.now()
    tasks.deliver_pending_notices()
    notice = Notice.objects.get()
    assert notice.state == "pending"
    assert before <= notice.next_attempt_at - timedelta(seconds=1) <= timezone.now()
    Notice.objects.update(next_attempt_at=notice.created_at)
    SlackPause.objects.update(until=notice.created_at)
    tasks.deliver_pending_notices()
    assert len(webhook.slack.bot_messages("C1")) == 1


def test_a_redis_that_refuses_delays_no_acknowledgement_and_loses_no_denial(
    webhook, workspace, out_of_credits, no_redis
):
    with Stopwatch() as waited:
        webhook.mention()
    assert waited.seconds < 3
    tasks.deliver_pending_notices()
    assert len(webhook.slack.bot_messages("C1")) == 1


def test_a_redis_that_hangs_delays_no_acknowledgement_beyond_slacks_time(
    webhook, workspace, out_of_credits, hanging_redis
):
    with Stopwatch() as waited:
        webhook.mention()
    assert waited.seconds < 3
    assert Mention.objects.get().state == "refused"


def test_a_flushed_redis_loses_no_denial(webhook, workspace, out_of_credits, redis_client):
    webhook.mention()
    redis_client.flushall()
    tasks.deliver_pending_notices()
    assert len(webhook.slack.bot_messages("C1")) == 1


def test_a_temporal_that_hangs_delays_no_acknowledgement_beyond_slacks_time(
    webhook, workspace, hanging_temporal
):
    with Stopwatch() as waited:
        webhook.mention()
    assert waited.seconds < 3
    assert Mention.objects.get().state == "received"


def test_a_redis_and_a_temporal_that_both_hang_are_still_answered_in_time(
    webhook, workspace, hanging_redis, hanging_temporal
):
    with Stopwatch() as waited:
        webhook.mention()
    assert waited.seconds < 3
    assert Mention.objects.get().state == "received"


def test_a_limit_lifted_while_copies_arrive_is_never_both_refused_and_started(
    webhook, workspace, out_of_credits, temporal, ts
):
    with ThreadPoolExecutor(1) as pool:
        arriving = pool.submit(copies_at_once, webhook, captured("mention", ts=ts))
        set_limit(workspace.project.organization, AI_CREDITS, None)
        arriving.result()
    started = temporal.has(workflow_of({"ts": ts}))
    assert Mention.objects.get().state == ("started" if started else "refused")
    assert Notice.objects.exists() is not started


@pytest.fixture
def four_workers(redis_client, temporal_address, tmp_path) -> Iterator[str]:
    """The address of a web process with four workers on the test's database."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    database = connection.settings_dict
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": (
            f"sqlite:///{database['NAME']}"
            if connection.vendor == "sqlite"
            else f"postgres://postgres@127.0.0.1:{database['PORT']}/{database['NAME']}"
        ),
    }
    argv = [sys.executable, "-m", *WEB, "--workers", "4", "--host", "127.0.0.1"]
    argv += ["--port", str(port)]
    with (tmp_path / "web.log").open("wb") as log:
        process = subprocess.Popen(
            argv, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: answers(f"{address}/_ready"), 60, "the web process being ready")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.wait()


@pytest.mark.case("S15")
@pytest.mark.slow
def test_twenty_concurrent_copies_on_four_workers_start_one_workflow(
    four_workers, workspace, slack, temporal, ts
):
    request = slack.signed("/slack/events/", captured("mention", ts=ts))

    def deliver(_number: int) -> int:
        sent = Request(four_workers + request.path, request.body, request.headers)
        for _ in range(REDELIVERIES):
            try:
                with urlopen(sent, timeout=30) as response:
                    return response.status
            except HTTPError as error:
                if error.code != 503:  # the database was too busy to record it
                    raise
        return 503

    with ThreadPoolExecutor(COPIES) as pool:
        assert set(pool.map(deliver, range(COPIES))) == {200}

    def is_started() -> bool:
        started = Mention.objects.get().state == "started"
        if not started:  # Temporal did not answer in time: the webhook starts it at the next copy
            deliver(0)
        return started

    wait_until(is_started, what="the start")
    assert temporal.has(workflow_of({"ts": ts}))

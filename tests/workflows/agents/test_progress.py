"""A person watches a run in its thread, stops it, or gets its answer: always one message."""

from datetime import timedelta

import pytest
from django.test import Client

from coding_tasks.models import TaskRun
from projects.models import OAuthAccessToken
from tests.conftest import wait_until
from tests.workflows.agents.calls import CALL, has_begun
from tests.workflows.temporal_server import wait_for_close
from tests.workflows.world import World
from workflows import tasks
from workflows.models import Mention
from workflows.progress import showing

FORM = "application/x-www-form-urlencoded"


@pytest.fixture(autouse=True)
def at_once(settings, monkeypatch) -> None:
    """Runs are shown from their first moment."""
    settings.PROGRESS_AFTER_SECONDS = 0
    monkeypatch.setattr(showing, "WITHOUT_STEPS", timedelta(0))


def watch(world: World, mention: Mention) -> dict:
    """Return the message that shows the run at work."""
    wait_until(has_begun, what="the agent's first words")
    tasks.show_progress()
    tasks.deliver_pending_notices()
    [shown] = world.slack.bot_messages("C1", mention.ts)
    return shown


def test_a_run_is_watched_and_stopped_by_its_button(coding: World, agents, client: Client):
    mention = coding.start("echo begun; sleep 600")
    shown = watch(coding, mention)
    assert shown["text"].startswith("Working on *acme/shop*.")
    assert "on `tollgate/" in shown["blocks"][0]["text"]["text"]
    button = shown["blocks"][-1]["elements"][0]
    interactions = coding.slack.slack.interactions
    payload = interactions.block_actions(
        shown, "C1", "U1", {"type": "button", "block_id": "", **button}
    )
    request = interactions.signed_payload(payload)
    assert client.post(
        request.path, request.body, content_type=FORM, headers=request.headers
    ).status_code == 200  # fmt: skip
    assert not OAuthAccessToken.objects.exists()
    wait_for_close(mention.workflow_id)
    tasks.deliver_pending_notices()
    tasks.show_progress()
    [said] = coding.said(mention.ts)
    assert said.startswith("Stopped, as <@U1> asked.")
    assert TaskRun.objects.get().state == TaskRun.State.STOPPED


def test_the_answer_takes_the_place_of_the_progress(coding: World, agents):
    coding.gateway.hold_next()
    mention = coding.start(f"echo begun; {CALL} && echo Done")
    shown = watch(coding, mention)
    coding.gateway.release()
    coding.wait_for_end(mention, Mention.State.ANSWERED)
    [answer] = coding.slack.bot_messages("C1", mention.ts)
    assert answer["text"] == "begun\nDone"
    assert answer["ts"] != shown["ts"]
    assert "credits · " in answer["blocks"][-1]["elements"][0]["text"]

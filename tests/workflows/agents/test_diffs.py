"""A change without a pull request is posted to the thread as a file."""

import pytest
from django.core.management import call_command

from coding_tasks.models import RunChange
from tests.workflows.agents.test_confirmations import SECRET, value
from tests.workflows.world import World
from workflows import notices, tasks
from workflows.models import Mention, Notice
from workflows.results import confirmations

pytestmark = pytest.mark.slow


def sent_patches(world: World, mention: Mention) -> list[str]:
    tasks.deliver_pending_notices()
    messages = world.slack.bot_messages("C1", mention.ts)
    return [world.slack.file(message) for message in messages if message.get("files")]


def test_a_pushed_change_without_a_pull_request_is_a_file(coding: World, agents):
    mention = coding.handle("echo 'print(1)' > version.py && echo Done")
    [patch] = sent_patches(coding, mention)
    assert patch.encode() == RunChange.objects.get().patch
    assert "+print(1)" in patch
    assert sent_patches(coding, mention) == [patch], "it is sent once"


def test_a_change_that_is_asked_about_is_a_file_only_after_the_click(coding: World, agents):
    mention = coding.handle(f"echo {SECRET} > config; echo Done")
    assert sent_patches(coding, mention) == []
    confirmations.agree(coding.workspace, "U1", value())
    tasks.publish_all_confirmed()
    [patch] = sent_patches(coding, mention)
    assert SECRET in patch


def test_an_erased_change_is_not_sent(coding: World, agents):
    mention = coding.handle("echo 'print(1)' > version.py && echo Done")
    call_command("erase_slack_user", "T1", "U1")
    assert sent_patches(coding, mention) == []
    assert Notice.objects.get(kind="diff").state == Notice.State.GIVEN_UP


def test_a_slack_that_takes_no_files_gets_none_and_the_answer_stands(coding: World, agents):
    mention = coding.handle("echo 'print(1)' > version.py && echo Done")
    coding.slack.fail_next("files.getUploadURLExternal", "missing_scope")
    assert sent_patches(coding, mention) == []
    assert Notice.objects.get(kind="diff").state == Notice.State.GIVEN_UP
    assert coding.said(mention.ts)[0].startswith("Done")


def test_the_file_comes_after_the_answer(coding: World, agents, monkeypatch):
    monkeypatch.setattr(notices, "send_soon", notices.deliver)  # as if a worker were very fast
    mention = coding.handle("echo 'print(1)' > version.py && echo Done")
    Notice.objects.filter(kind="diff").update(next_attempt_at=mention.received_at)
    tasks.deliver_pending_notices()
    answer, file = coding.said(mention.ts)
    assert answer.startswith("Done")
    assert file.startswith("The change on")


def test_an_agent_that_changes_nothing_sends_no_file(coding: World, agents):
    mention = coding.handle("echo Nothing to do")
    assert sent_patches(coding, mention) == []
    assert not Notice.objects.filter(kind="diff").exists()

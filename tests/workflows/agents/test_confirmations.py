"""A change that somebody has to agree to is pushed after a click of the person who asked for it."""

import time
from pathlib import Path

import pytest
from django.core import signing
from django.utils import timezone

from coding_tasks.models import RunChange
from coding_tasks.repositories.file_locks import locked
from tests.workflows.world import World
from workflows import tasks, wording
from workflows.models import Mention, Notice
from workflows.results import confirmations

pytestmark = pytest.mark.slow

# The form of a GitHub token, made here so that no scanner finds one in this file.
SECRET = "ghp_" + "0123456789abcdef" * 2 + "0123"


@pytest.fixture
def asked(coding: World, agents) -> Mention:
    """A mention whose change seems to contain a token."""
    mention = coding.handle(f"echo {SECRET} > config; echo Done")
    tasks.deliver_pending_notices()
    return mention


def value() -> str:
    """Return the value of the button that was posted."""
    return Notice.objects.get(kind="question").blocks[-1]["elements"][0]["value"]


def test_a_change_with_a_secret_is_not_pushed_but_asked_about(coding: World, asked: Mention):
    answer, question = coding.said(asked.ts)
    assert answer.startswith("Done")
    assert "which is pushed" not in answer
    assert question.startswith("<@U1>, I have not pushed this change yet:")
    assert "`config` (line 1) seems to contain" in question
    assert SECRET not in question
    assert RunChange.objects.get().pushed_at is None


def test_a_click_of_the_requester_pushes_it_once(coding: World, asked: Mention):
    for _ in range(2):
        confirmations.agree(coding.workspace, "U1", value())
        tasks.publish_all_confirmed()
    tasks.deliver_pending_notices()
    change = RunChange.objects.get()
    assert change.pushed_at is not None
    told, file = coding.said(asked.ts)[2:]
    assert told.startswith("Changed 1 file (+1 −0)")
    assert told.endswith("which is pushed.")
    assert file == f"The change on `{change.branch}`, for `git apply`:"


def test_a_change_whose_process_died_after_the_push_is_still_reported(
    coding: World, asked: Mention
):
    RunChange.objects.update(agreed_at=timezone.now(), pushed_at=timezone.now())
    for _ in range(2):
        tasks.publish_all_confirmed()
        tasks.deliver_pending_notices()
    told, _file = coding.said(asked.ts)[2:]
    assert told.endswith("which is pushed.")
    assert not confirmations.to_publish().exists()


def test_a_repository_that_hangs_occupies_one_thread_only(coding: World, asked: Mention, settings):
    confirmations.agree(coding.workspace, "U1", value())
    lock = Path(settings.REPOSITORIES_DIRECTORY) / "publishing.lock"
    with locked(lock, time.monotonic(), exclusive=True):  # as a push that hangs holds it
        tasks.publish_all_confirmed()
        tasks.publish_confirmed(str(RunChange.objects.get().run_id))
        assert RunChange.objects.get().pushed_at is None
    tasks.publish_all_confirmed()
    assert RunChange.objects.get().pushed_at is not None


def test_a_long_list_of_questions_is_shown_whole_and_as_it_is(coding: World, asked: Mention):
    Notice.objects.filter(kind="question").delete()
    run = RunChange.objects.get().run
    reasons = tuple(f"`{'<' * 200}{number}` seems odd, says @here." for number in range(20))
    blocks = confirmations.ask(run, reasons).blocks
    texts = [block["text"] for block in blocks[:-1]]
    assert [text["text"] for text in texts[1:-1]] == [
        f"• {wording.escape(reason)}" for reason in reasons
    ]
    assert all(text["verbatim"] for text in texts)


def test_a_click_of_somebody_else_only_tells_them_who_decides(coding: World, asked: Mention):
    confirmations.agree(coding.workspace, "U2", value())
    tasks.publish_all_confirmed()
    assert RunChange.objects.get().agreed_at is None
    refusal = Notice.objects.get(user_id="U2")
    assert refusal.text == "<@U2>, only <@U1>, whose task this is, can decide this."


def test_a_forged_button_does_nothing(coding: World, asked: Mention):
    run_id = RunChange.objects.get().run_id
    forged = signing.Signer(key="another-key", salt="tollgate.publish").sign(run_id.hex)
    for wrong in (forged, run_id.hex, ""):
        confirmations.agree(coding.workspace, "U1", wrong)
    assert RunChange.objects.get().agreed_at is None


def test_a_refused_push_is_reported_and_not_tried_again(coding: World, asked: Mention, clone_urls):
    hook = Path(clone_urls["acme/shop"].removeprefix("file://"), ".git", "hooks", "pre-receive")
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho protected by a rule; exit 1\n")
    hook.chmod(0o755)
    try:
        confirmations.agree(coding.workspace, "U1", value())
        tasks.publish_all_confirmed()
    finally:
        hook.unlink()
    change = RunChange.objects.get()
    assert change.settled_at is not None
    assert not confirmations.to_publish().exists()
    assert "Not pushed." in Notice.objects.get(key=f"published:{change.run_id}").text

"""A notice is edited in place: texts are merged, the last one is shown, and it can be withdrawn."""

import time
from datetime import timedelta
from itertools import pairwise

import pytest
from django.utils import timezone

from coding_tasks.models import CodingTask, Repository, TaskRun
from tests.conftest import wait_until
from tests.workflows.test_notices import deliver, deliver_again
from tests.workflows.test_notices import mention as mention
from tests.workflows.test_notices import slack as slack
from tests.workflows.test_notices import workspace as workspace
from workflows import notices, tasks
from workflows.messages import edits, thread_order
from workflows.models import Notice, SlackPause
from workflows.slack.block_kit import section


@pytest.fixture
def run(mention) -> TaskRun:
    project = mention.workspace.project
    task = CodingTask.objects.create(
        project=project,
        repository=Repository.objects.create(project=project, full_name="a/b", clone_url="x"),
        workspace=mention.workspace,
        channel_id="C1",
        thread_ts=mention.ts,
        owner_slack_user_id="U1",
        title="Look",
        workflow_id="the workflow",
    )
    return TaskRun.objects.create(
        task=task, message_ts=mention.ts, request="x", state="running", started_at=timezone.now()
    )


@pytest.fixture
def progress(mention, run) -> Notice:
    return notices.claim(thread_order.progress_key(run), Notice.Kind.PROGRESS, mention, "step 1")


@pytest.fixture
def shown(slack, progress) -> Notice:
    """Progress that is in the thread."""
    return deliver(progress)


def texts(slack, mention) -> list[str]:
    return [message["text"] for message in slack.bot_messages("C1", mention.ts)]


# --- Merging -------------------------------------------------------------------------------------
@pytest.mark.case("U1")
def test_one_text_a_second_is_shown_and_always_the_last(slack, mention, shown):
    begun = time.monotonic()
    for number in range(20):
        edits.revise(shown, f"step {number}")
        tasks.deliver_pending_notices()
    took = time.monotonic() - begun

    def last_is_shown() -> bool:
        tasks.deliver_pending_notices()
        return texts(slack, mention) == ["step 19"]

    wait_until(last_is_shown, what="the last text")
    times = [call.at for call in slack.calls("chat.update")]
    assert len(times) <= 1 + took
    assert all(later - earlier >= 1 for earlier, later in pairwise(times))
    assert len(slack.calls("chat.postMessage")) == 1


def test_a_text_that_comes_while_another_is_sent_is_shown_next(slack, mention, shown):
    edits.revise(shown, "step 2")
    Notice.objects.update(next_attempt_at=timezone.now())
    update = notices.posting.edit

    def edit_and_revise(client, notice):
        update(client, notice)
        if notice.text == "step 2":
            edits.revise(notice, "step 3")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notices.posting, "edit", edit_and_revise)
        assert deliver(shown).state == "pending"
        assert texts(slack, mention) == ["step 2"]
        deliver_again(shown)
    assert (shown.state, texts(slack, mention)) == ("sent", ["step 3"])


def test_the_same_text_is_no_edit(slack, shown):
    assert not edits.revise(shown, "step 1")
    deliver_again(shown)
    assert slack.calls("chat.update") == []


def test_an_unsent_notice_is_sent_with_its_last_text(slack, mention, progress):
    edits.revise(progress, "step 2", [section("step 2")])
    deliver(progress)
    [posted] = slack.bot_messages("C1", mention.ts)
    assert posted["text"] == "step 2"
    assert slack.calls("chat.update") == []


def test_an_edit_is_literal(slack, shown):
    """Unlike chat.postMessage, chat.update would look for names and channels by itself."""
    edits.revise(shown, "@here #general")
    deliver_again(shown)
    assert slack.calls("chat.update")[0].arguments["parse"] == "none"


# --- What Slack refuses --------------------------------------------------------------------------
@pytest.mark.case("U3")
def test_progress_that_somebody_deleted_is_shown_in_a_new_message(slack, mention, shown):
    slack.delete(slack.bot_messages("C1", mention.ts)[0])
    edits.revise(shown, "step 2")
    deliver_again(shown)
    [posted] = slack.bot_messages("C1", mention.ts)
    assert (posted["text"], posted["ts"]) == ("step 2", shown.message_ts)
    edits.revise(shown, "step 3")
    deliver_again(shown)
    assert texts(slack, mention) == ["step 3"]


def test_a_new_message_with_unknown_outcome_is_not_posted_twice(slack, mention, shown):
    slack.delete(slack.bot_messages("C1", mention.ts)[0])
    slack.drop_answer_next("chat.postMessage")
    edits.revise(shown, "step 2")
    deliver_again(shown)
    deliver_again(shown)
    assert (shown.state, texts(slack, mention)) == ("sent", ["step 2"])


def test_another_message_that_somebody_deleted_stays_deleted(slack, mention, run):
    answer = deliver(notices.claim("answer:1", Notice.Kind.ANSWER, mention, "42"))
    slack.delete(slack.bot_messages("C1", mention.ts)[0])
    edits.revise(answer, "43")
    deliver_again(answer)
    assert (answer.state, texts(slack, mention)) == ("sent", [])


@pytest.mark.parametrize(
    "error",
    ["ratelimited", "service_unavailable", "external_channel_migrating", "internal_error"],
)
def test_an_edit_that_fails_for_now_is_repeated_without_a_search(slack, mention, shown, error):
    slack.fail_next("chat.update", error)
    edits.revise(shown, "step 2")
    deliver_again(shown)
    assert texts(slack, mention) == ["step 1"]
    deliver_again(shown)
    assert (shown.state, texts(slack, mention)) == ("sent", ["step 2"])
    assert slack.calls("conversations.replies") == []


def test_edits_during_a_rate_limit_are_merged_into_one(slack, mention, shown):
    slack.fail_next("chat.update", "ratelimited", retry_after=30)
    edits.revise(shown, "step 2")
    deliver_again(shown)
    for number in range(3, 6):
        edits.revise(shown, f"step {number}")
        Notice.objects.update(next_attempt_at=timezone.now())
        deliver(shown)
    assert len(slack.calls("chat.update")) == 1
    deliver_again(shown)
    assert texts(slack, mention) == ["step 5"]
    assert len(slack.calls("chat.update")) == 2


REFUSED = ["channel_not_found", "is_inactive", "edit_window_closed", "cant_update_message"]


@pytest.mark.parametrize("error", REFUSED)
def test_an_answer_that_cannot_be_edited_keeps_its_text(slack, mention, error):
    answer = deliver(notices.claim("answer:1", Notice.Kind.ANSWER, mention, "42"))
    slack.fail_next("chat.update", error)
    edits.revise(answer, "43")
    deliver_again(answer)
    assert (answer.state, answer.error, texts(slack, mention)) == ("sent", error, ["42"])
    assert slack.ephemeral_messages("C1") == []


@pytest.mark.parametrize("error", REFUSED)
def test_progress_that_cannot_be_edited_is_given_up_quietly(slack, shown, error):
    slack.fail_next("chat.update", error)
    edits.revise(shown, "step 2")
    deliver_again(shown)
    assert (shown.state, shown.error) == ("given_up", error)
    assert not edits.revise(shown, "step 3")
    assert slack.ephemeral_messages("C1") == []


@pytest.mark.parametrize("error", ["channel_not_found", "token_revoked", "msg_too_long"])
def test_progress_that_cannot_be_posted_is_given_up_quietly(slack, progress, error):
    slack.fail_next("chat.postMessage", error)
    assert deliver(progress).state == "given_up"
    assert len(slack.calls()) == 1


# --- Withdrawing ---------------------------------------------------------------------------------
def test_a_withdrawn_message_is_deleted(slack, mention, shown):
    edits.withdraw(shown)
    assert (deliver(shown).state, texts(slack, mention)) == ("withdrawn", [])
    assert not edits.revise(shown, "step 2")


def test_a_withdrawn_notice_that_was_never_sent_is_not_sent(slack, progress):
    edits.withdraw(progress)
    assert deliver(progress).state == "withdrawn"
    assert slack.calls() == []


def test_a_withdrawn_message_whose_outcome_is_unknown_is_found_and_deleted(
    slack, mention, progress
):
    slack.drop_answer_next("chat.postMessage")
    deliver(progress)
    assert texts(slack, mention) == ["step 1"]
    edits.withdraw(progress)
    deliver_again(progress)
    assert (progress.state, texts(slack, mention)) == ("withdrawn", [])


def test_a_message_withdrawn_while_it_is_posted_is_deleted_at_once(slack, mention, progress):
    post = notices.posting.post

    def withdraw_and_post(client, notice, message):
        edits.withdraw(notice)
        return post(client, notice, message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notices.posting, "post", withdraw_and_post)
        assert deliver(progress).state == "withdrawn"
    assert texts(slack, mention) == []


def test_a_message_that_is_gone_already_counts_as_deleted(slack, mention, shown):
    slack.delete(slack.bot_messages("C1", mention.ts)[0])
    edits.withdraw(shown)
    assert deliver(shown).state == "withdrawn"


def test_a_message_that_cannot_be_deleted_says_only_that_the_work_has_ended(slack, mention, shown):
    slack.fail_next("chat.delete", "cant_delete_message")
    edits.withdraw(shown)
    assert deliver(shown).state == "withdrawn"
    [left] = slack.bot_messages("C1", mention.ts)
    assert (left["text"], left["blocks"]) == ("This work has ended.", [])


def test_a_deletion_that_fails_for_now_is_repeated(slack, mention, shown):
    slack.fail_next("chat.delete", "ratelimited", retry_after=5)
    edits.withdraw(shown)
    assert deliver(shown).state == "pending"
    deliver_again(shown)
    assert (shown.state, texts(slack, mention)) == ("withdrawn", [])


def test_progress_of_a_run_that_has_ended_is_not_shown_any_more(slack, run, progress):
    TaskRun.objects.update(state="stopped")
    assert deliver(progress).state == "withdrawn"
    assert slack.calls() == []


def test_progress_whose_sender_died_is_deleted_if_the_run_has_ended(slack, mention, run, progress):
    slack.drop_answer_next("chat.postMessage")
    deliver(progress)
    TaskRun.objects.update(state="stopped")
    deliver_again(progress)
    assert (progress.state, texts(slack, mention)) == ("withdrawn", [])


# --- Beside other messages -----------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["answer", "failure", "denial"])
def test_what_ends_a_run_takes_the_place_of_its_progress(slack, mention, run, shown, kind):
    TaskRun.objects.update(state="succeeded")
    deliver(notices.claim("the end", kind, mention, "The end."))
    assert texts(slack, mention) == ["The end."]


def test_a_message_that_does_not_end_the_run_stays_beside_its_progress(slack, mention, shown):
    deliver(notices.claim("not yours", Notice.Kind.NOT_YOUR_TASK, mention, "Not yours."))
    assert texts(slack, mention) == ["step 1", "Not yours."]


def test_an_answer_is_posted_although_the_progress_cannot_be_deleted(slack, mention, run, shown):
    slack.fail_next("chat.delete", "ratelimited", retry_after=30)
    TaskRun.objects.update(state="succeeded")
    deliver(notices.claim("answer:1", Notice.Kind.ANSWER, mention, "42"))
    assert texts(slack, mention) == ["step 1", "42"]
    deliver_again(shown)
    assert texts(slack, mention) == ["42"]


def test_an_answer_waits_for_progress_that_is_being_posted(slack, mention, run, progress):
    TaskRun.objects.update(state="succeeded")
    in_flight = timezone.now() + timedelta(seconds=40)
    Notice.objects.update(state="sending", next_attempt_at=in_flight)
    answer = notices.claim("answer:1", Notice.Kind.ANSWER, mention, "42")
    assert deliver(answer).state == "pending"
    old = timezone.now() - timedelta(seconds=6)
    Notice.objects.filter(pk=answer.pk).update(created_at=old, next_attempt_at=timezone.now())
    assert deliver(answer).state == "sent"


# --- Order ---------------------------------------------------------------------------------------
def test_messages_of_a_thread_are_sent_in_order(slack, mention):
    slack.fail_next("chat.postMessage", "service_unavailable")
    first = deliver(notices.claim("first", Notice.Kind.ANSWER, mention, "first"))
    second = deliver(notices.claim("second", Notice.Kind.ANSWER, mention, "second"))
    assert (first.state, second.state) == ("pending", "pending")
    deliver_again(first)
    deliver_again(second)
    assert texts(slack, mention) == ["first", "second"]


def test_a_message_does_not_wait_long_for_an_earlier_one(slack, mention):
    slack.fail_next("chat.postMessage", "service_unavailable")
    deliver(notices.claim("first", Notice.Kind.ANSWER, mention, "first"))
    second = notices.claim("second", Notice.Kind.ANSWER, mention, "second")
    Notice.objects.update(created_at=timezone.now() - notices.LEASE)
    assert deliver(second).state == "sent"


def test_messages_of_other_threads_do_not_wait(slack, mention, run):
    slack.fail_next("chat.postMessage", "service_unavailable")
    deliver(notices.claim("first", Notice.Kind.ANSWER, mention, "first"))
    mention.thread_ts = "1.1"
    assert deliver(notices.claim("second", Notice.Kind.ANSWER, mention, "second")).state == "sent"


def test_a_rate_limit_that_is_over_is_forgotten(slack, mention):
    slack.fail_next("chat.postMessage", "ratelimited", retry_after=1)
    deliver(notices.claim("first", Notice.Kind.ANSWER, mention, "first"))
    SlackPause.objects.update(until=timezone.now() - timedelta(seconds=1))
    tasks.deliver_pending_notices()
    assert not SlackPause.objects.exists()

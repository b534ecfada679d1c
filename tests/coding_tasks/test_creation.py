"""Tasks are created only with credits, once per workflow, and one at a time per thread."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest

from coding_tasks import creation, threads
from coding_tasks.creation import Refused, Request, ThreadTaken
from coding_tasks.models import CodingTask, TaskRun

create_task = partial(creation.create_task, check=lambda: None)


@pytest.fixture
def request_(workspace) -> Request:
    return Request(
        workspace=workspace,
        channel_id="C1",
        thread_ts="100.1",
        message_ts="100.1",
        user_id="U1",
        text="\n  Explain the cart\nplease",
    )


@pytest.fixture
def limited(redis_client, project):
    until = datetime(2100, 1, 1, tzinfo=UTC).timestamp()
    redis_client.zadd("@posthog/quota-limits/ai_credits", {project.api_token: until})


@pytest.mark.case("W8")
def test_a_task_begins_with_a_run_of_its_message(redis_client, request_, repository):
    run = create_task(request_, repository, "mention-1")
    assert (run.state, run.message_ts) == (TaskRun.State.QUEUED, "100.1")
    assert run.task.title == "Explain the cart"
    assert threads.active_task(request_.workspace, "C1", "100.1") == run.task


@pytest.mark.case("W2")
def test_without_credits_nothing_is_made(limited, request_, repository):
    with pytest.raises(Refused) as refused:
        create_task(request_, repository, "mention-1")
    assert refused.value.verdict.limited
    assert not CodingTask.objects.exists()
    assert not TaskRun.objects.exists()


def test_an_attempt_that_is_repeated_finds_its_task_even_if_the_credits_ended(
    redis_client, request_, repository, project
):
    first = create_task(request_, repository, "mention-1")
    until = datetime(2100, 1, 1, tzinfo=UTC).timestamp()
    redis_client.zadd("@posthog/quota-limits/ai_credits", {project.api_token: until})
    assert create_task(request_, repository, "mention-1") == first
    assert CodingTask.objects.count() == 1


@pytest.mark.case("W9")
def test_a_thread_has_one_active_task(redis_client, request_, repository):
    create_task(request_, repository, "mention-1")
    with pytest.raises(ThreadTaken):
        create_task(replace(request_, message_ts="100.2"), repository, "mention-2")
    assert CodingTask.objects.count() == 1


def test_a_thread_is_free_again_once_its_task_has_ended(redis_client, request_, repository):
    create_task(request_, repository, "mention-1")
    threads.abandon("mention-1")
    assert threads.active_task(request_.workspace, "C1", "100.1") is None
    assert TaskRun.objects.get().state == TaskRun.State.FAILED
    create_task(replace(request_, message_ts="100.2"), repository, "mention-2")
    assert CodingTask.objects.filter(state=CodingTask.State.ACTIVE).count() == 1


def test_other_threads_do_not_matter(redis_client, request_, repository):
    create_task(request_, repository, "mention-1")
    other = replace(request_, thread_ts="200.1", message_ts="200.1")
    create_task(other, repository, "mention-2")
    assert CodingTask.objects.count() == 2


def test_a_very_long_or_empty_text_still_has_a_title(redis_client, request_, repository):
    long = create_task(replace(request_, text="x" * 1_000), repository, "mention-1")
    assert long.task.title == "x" * 200
    empty = replace(request_, text=" \n ", thread_ts="3.0", message_ts="3.0")
    assert create_task(empty, repository, "mention-2").task.title == "(no text)"


def test_nothing_is_made_if_the_check_refuses(redis_client, request_, repository):
    class Gone(Exception):
        pass

    def refuse() -> None:
        raise Gone

    with pytest.raises(Gone):
        creation.create_task(request_, repository, "mention-1", check=refuse)
    assert not CodingTask.objects.exists()
    assert not TaskRun.objects.exists()

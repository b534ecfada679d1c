"""The client reaches workflows in limited time, from any thread, before and after a fork."""

import os
import socket
import uuid
from datetime import timedelta

import pytest

from devstack.servers import free_port
from tests.stopwatch import Stopwatch
from tests.workflows.temporal_server import history, wait_for_close
from tests.workflows.threads import at_once
from tests.workflows.world import World
from workflows import tasks
from workflows.intake import follow_ups
from workflows.mention_types import Ending, RepositoryChoice, workflow_id
from workflows.models import FollowUp, Mention
from workflows.temporal import client

DEADLINE = client.DEADLINE
HOUR = timedelta(hours=1)


@pytest.fixture
def unconnected(monkeypatch):
    """A process that has not called Temporal yet."""
    monkeypatch.setattr(client, "_connection", None)


@pytest.fixture
def impatient(world: World, monkeypatch):
    """A process that waits for Temporal only as long as in production."""
    monkeypatch.setattr(client, "DEADLINE", DEADLINE)


@pytest.fixture
def down(unconnected, impatient, settings):
    """A Temporal that refuses connections."""
    settings.TEMPORAL_ADDRESS = f"127.0.0.1:{free_port()}"


def follow_up(world: World, mention: Mention) -> FollowUp:
    return FollowUp.objects.create(
        workspace=world.workspace,
        channel_id="C1",
        ts="2.0",
        thread_ts=mention.ts,
        user_id="U1",
        text="and?",
        addressed=False,
        workflow_id=workflow_id("T1", "C1", mention.ts),
    )


@pytest.mark.case("W9")
def test_a_workflow_is_named_after_the_message(world: World):
    mention = world.start()
    mention.refresh_from_db()
    assert mention.state == Mention.State.STARTED
    assert mention.workflow_id == f"mention-T1-C1-{mention.ts}"


def test_starting_twice_counts_as_started_and_undoes_nothing(world: World):
    mention = world.start()
    client.start_mention(mention)
    Mention.objects.filter(pk=mention.pk).update(state=Mention.State.ANSWERED)
    client.start_mention(mention)
    mention.refresh_from_db()
    assert mention.state == Mention.State.ANSWERED


def test_copies_started_at_once_from_many_threads_are_one_workflow(world: World, unconnected):
    mention = world.mention()
    at_once(*[lambda: client.start_mention(mention)] * 20)
    mention.refresh_from_db()
    assert mention.state == Mention.State.STARTED


def test_a_finished_workflow_is_not_run_again(world: World, worker):
    world.limit()
    mention = world.handle()
    wait_for_close(mention.workflow_id)
    only_run = history(mention.workflow_id).run_id
    Mention.objects.filter(pk=mention.pk).update(state=Mention.State.RECEIVED)
    client.start_mention(mention)
    mention.refresh_from_db()
    assert mention.state == Mention.State.STARTED
    assert history(mention.workflow_id).run_id == only_run


@pytest.mark.usefixtures("down")
def test_while_temporal_is_down_the_rows_stay_as_they_are(world: World):
    mention = world.mention()
    message = follow_up(world, mention)
    with Stopwatch() as waited:
        with pytest.raises(client.TemporalUnavailable):
            client.start_mention(mention)
        with pytest.raises(client.TemporalUnavailable):
            client.signal_follow_up(message)
        with pytest.raises(client.TemporalUnavailable):
            client.signal_repository_choice("mention-1", RepositoryChoice(1))
    assert waited.seconds < 3 * DEADLINE.total_seconds()
    mention.refresh_from_db()
    message.refresh_from_db()
    assert mention.state == Mention.State.RECEIVED
    assert message.state == FollowUp.State.RECEIVED


def test_callers_do_not_wait_for_a_hanging_temporal(world: World, unconnected, impatient, settings):
    mention = world.mention()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.TEMPORAL_ADDRESS = f"127.0.0.1:{silent.getsockname()[1]}"
        with Stopwatch() as waited, pytest.raises(client.TemporalUnavailable):
            client.start_mention(mention)
        assert waited.seconds < DEADLINE.total_seconds() + 1


def test_signalling_an_unknown_workflow_raises_workflow_ended(world: World):
    message = follow_up(world, world.mention())
    with pytest.raises(client.WorkflowEnded):
        client.signal_follow_up(message)
    follow_ups.signal(message)
    message.refresh_from_db()
    assert message.state == FollowUp.State.DROPPED
    with pytest.raises(client.WorkflowEnded):
        client.signal_repository_choice(f"mention-{uuid.uuid4()}", RepositoryChoice(1))


def test_a_process_that_dies_as_a_task_turns_out_to_be_gone_loses_no_mention(
    world: World, monkeypatch
):
    mention = world.mention()
    Mention.objects.update(state=Mention.State.FORWARDED)
    message = follow_up(world, mention)
    FollowUp.objects.update(addressed=True, ts=mention.ts, received_at=mention.received_at - HOUR)
    message.refresh_from_db()

    def killed(_message):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(follow_ups, "restart_mention", killed)
        with pytest.raises(SystemExit):
            follow_ups.signal(message)
    tasks.deliver_pending_follow_ups()
    mention.refresh_from_db()
    assert mention.state == Mention.State.RECEIVED


def test_the_workflow_id_is_stored_before_the_workflow_starts(world: World, monkeypatch):
    """Sweeps find a workflow that ends early by this id."""
    mention = world.mention()
    call = client._Connection.call

    def started_and_killed(*arguments):
        call(*arguments)
        raise SystemExit

    monkeypatch.setattr(client._Connection, "call", started_and_killed)
    with pytest.raises(SystemExit):
        client.start_mention(mention)
    mention.refresh_from_db()
    assert mention.workflow_id == workflow_id("T1", "C1", mention.ts)


def test_a_forked_child_knows_nothing_of_its_parents_connection(world: World):
    client.signal_repository_choice(world.start().workflow_id, RepositoryChoice(1))
    with client._lock:  # as if another thread of the parent were connecting at that moment
        child = os.fork()
        if child == 0:
            # No connection is made here: in a child of many threads any lock may be held for ever.
            forgotten = client._connection is None and client._lock.acquire(blocking=False)
            os._exit(0 if forgotten else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert client._connection is not None


def test_endings_are_states_of_the_mentions_row():
    assert {str(ending) for ending in Ending} <= set(Mention.State.values)

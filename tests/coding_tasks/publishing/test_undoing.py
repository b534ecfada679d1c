"""Undoing a change: the branch and the pull request are as before it, or nothing is changed."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from django.db import connection
from django.utils import timezone

from coding_tasks.failures import CheckoutFailed, PublishingFailed
from coding_tasks.models import ChangeUndo, GitCredential, RunChange, TaskRun
from coding_tasks.publishing import undoing
from coding_tasks.publishing.outcomes import KeptAsDiff, UndoRefusal
from coding_tasks.publishing.publication import prepare, publish, task_diff
from tests import fake_github
from tests.git_repositories import run_git

pytestmark = pytest.mark.django_db
PULL = "/repos/acme/shop/pulls/1"
ADDRESS = "https://github.com/acme/shop/pull/1"


@pytest.fixture
def no_github(credential: GitCredential) -> None:
    """A repository that takes pushes, but has no pull requests."""
    credential.api_url = ""
    credential.save()


def done(task) -> None:
    """Mark the task's runs as ended, as they are when their answers are posted."""
    TaskRun.objects.filter(task=task).update(state=TaskRun.State.SUCCEEDED)


def published(mirrors, task, work, path: str = "version.py") -> TaskRun:
    run = work(task, path)
    publish(mirrors, run)
    done(task)
    return run


def undo(mirrors, run: TaskRun, **how: bool) -> ChangeUndo:
    asked = undoing.ask(run.pk, "U1")
    assert isinstance(asked, ChangeUndo), asked
    if asked.state == ChangeUndo.State.WANTED:
        undoing.perform(mirrors, asked, **how)
    return ChangeUndo.objects.get(run=run)


def tip(upstream, task) -> str:
    return run_git(
        upstream, "for-each-ref", "--format=%(objectname)", f"refs/heads/{task.branch.name}"
    )


def files(upstream, task) -> list[str]:
    return run_git(upstream, "ls-tree", "--name-only", task.branch.name).split()


def push_of_another(upstream, task, tmp_path) -> str:
    """Have somebody else push to the branch; return their commit."""
    other = tmp_path / "other"
    run_git(tmp_path, "clone", "--quiet", "--branch", task.branch.name, str(upstream), "other")
    run_git(other, "commit", "--quiet", "--allow-empty", "--message=mine")
    run_git(other, "push", "--quiet")
    return run_git(other, "rev-parse", "HEAD")


# --- without a pull request -----------------------------------------------------------------------
@pytest.mark.usefixtures("no_github")
def test_the_first_change_of_a_branch_is_undone_with_the_branch(mirrors, task, work, upstream):
    run = published(mirrors, task, work)
    row = undo(mirrors, run)
    assert (row.state, tip(upstream, task)) == ("done", "")
    assert row.outcome.endswith("had no other change and is deleted.")


@pytest.mark.usefixtures("no_github")
def test_a_later_change_leaves_the_branch_at_its_earlier_commit(mirrors, task, work, upstream):
    first = published(mirrors, task, work)
    second = published(mirrors, task, work, "second")
    row = undo(mirrors, second)
    assert (row.state, tip(upstream, task)) == ("done", first.change.commit)
    assert row.outcome.endswith("is as it was before.")
    assert task_diff(task) == first.change.patch


@pytest.mark.usefixtures("no_github")
def test_nothing_is_changed_if_somebody_has_pushed_since(mirrors, task, work, upstream, tmp_path):
    run = published(mirrors, task, work)
    theirs = push_of_another(upstream, task, tmp_path)
    row = undo(mirrors, run)
    assert (row.state, tip(upstream, task)) == ("refused", theirs)
    assert row.outcome.startswith("I changed nothing: somebody has pushed to the branch")


@pytest.mark.usefixtures("no_github")
def test_nothing_is_changed_if_somebody_pushes_at_the_same_moment(
    mirrors, task, work, upstream, tmp_path, monkeypatch
):
    run = published(mirrors, task, work)
    put_back = undoing.put_back

    def push_first(*given, **named):
        push_of_another(upstream, task, tmp_path)
        return put_back(*given, **named)

    monkeypatch.setattr(undoing, "put_back", push_first)
    row = undo(mirrors, run)
    assert row.state == "refused"
    assert tip(upstream, task) == run_git(tmp_path / "other", "rev-parse", "HEAD")


@pytest.mark.usefixtures("no_github")
@pytest.mark.parametrize("on_another_machine", [False, True])
@pytest.mark.parametrize("turns", [1, 2])
def test_the_next_turn_does_not_bring_the_change_back(
    mirrors, task, work, upstream, tmp_path, turns, on_another_machine
):
    runs = [published(mirrors, task, work, f"file{number}") for number in range(turns)]
    elsewhere = replace(mirrors, directory=tmp_path / "elsewhere")
    prepare(elsewhere, task)  # contains the commit that is undone
    undo(elsewhere if on_another_machine else mirrors, runs[-1])
    published(mirrors, task, work, "later")
    kept = [f"file{number}" for number in range(turns - 1)]
    assert files(upstream, task) == ["README.md", *kept, "later"]


def given_up(run: TaskRun, note: str = "Not pushed. The work was stopped first.") -> None:
    """Record what is left of a push whose process died, and which was given up afterwards."""
    began = {"push_began_at": timezone.now(), "pushed_at": None, "note": note}
    RunChange.objects.filter(run=run).update(**began)


@pytest.mark.usefixtures("no_github")
@pytest.mark.parametrize("turns", [1, 2])
def test_a_change_whose_push_arrived_unnoticed_is_taken_back(mirrors, task, work, upstream, turns):
    runs = [published(mirrors, task, work, f"file{number}") for number in range(turns)]
    given_up(runs[-1])
    row = undo(mirrors, runs[-1])
    left = runs[0].change.commit if turns == 2 else ""
    assert (row.state, tip(upstream, task)) == ("done", left)


@pytest.mark.usefixtures("no_github")
@pytest.mark.parametrize("pushed_before", [True, False])
def test_a_change_whose_push_began_and_never_arrived_is_discarded(
    mirrors, task, work, upstream, pushed_before
):
    first = published(mirrors, task, work) if pushed_before else None
    run = work(task, "second")
    done(task)
    given_up(run)
    row = undo(mirrors, run)
    assert (row.state, tip(upstream, task)) == ("done", first.change.commit if first else "")


# --- with a pull request --------------------------------------------------------------------------
def test_a_change_that_never_arrived_in_a_pull_request_is_discarded(
    mirrors, task, work, github, upstream
):
    first = published(mirrors, task, work)
    run = work(task, "second")
    done(task)
    given_up(run)
    row = undo(mirrors, run)
    assert (row.state, row.revert_commit, tip(upstream, task)) == ("done", "", first.change.commit)
    assert github.pull_requests[0]["state"] == "open"


def test_the_first_change_of_a_pull_request_is_reverted_and_the_request_closed(
    mirrors, task, work, github, upstream
):
    run = published(mirrors, task, work)
    row = undo(mirrors, run)
    assert (row.state, row.revert_commit) == ("done", tip(upstream, task))
    assert run_git(upstream, "rev-parse", f"{row.revert_commit}^") == run.change.commit
    assert files(upstream, task) == ["README.md"]
    assert github.pull_requests[0]["state"] == "closed"
    assert row.outcome.endswith(f"The pull request is closed: {ADDRESS}")
    task.branch.refresh_from_db()
    assert task.branch.pull_request == ""


def test_a_pull_request_with_earlier_changes_stays_open(mirrors, task, work, github, upstream):
    published(mirrors, task, work)
    second = published(mirrors, task, work, "second")
    row = undo(mirrors, second)
    assert files(upstream, task) == ["README.md", "version.py"]
    assert github.pull_requests[0]["state"] == "open"
    assert row.outcome.endswith(f"stays open, because it has earlier changes: {ADDRESS}")


def test_changes_are_undone_one_after_the_other(mirrors, task, work, github, upstream):
    first = published(mirrors, task, work)
    second = published(mirrors, task, work, "second")
    assert undoing.ask(first.pk, "U1") is UndoRefusal.BUILT_ON
    undo(mirrors, second)
    row = undo(mirrors, first)
    assert (row.state, files(upstream, task)) == ("done", ["README.md"])
    assert github.pull_requests[0]["state"] == "closed"


def test_the_next_turn_after_a_pull_request_opens_another(mirrors, task, work, github, upstream):
    undo(mirrors, published(mirrors, task, work))
    published(mirrors, task, work, "later")
    assert files(upstream, task) == ["README.md", "later"]
    assert [pull["state"] for pull in github.pull_requests] == ["closed", "open"]


def test_a_merged_pull_request_is_left_alone(mirrors, task, work, github, upstream):
    run = published(mirrors, task, work)
    github.pull_requests[0] |= {"state": "closed", "merged": True}
    row = undo(mirrors, run)
    assert (row.state, tip(upstream, task)) == ("refused", run.change.commit)
    assert row.outcome == f"I changed nothing: the pull request is merged: {ADDRESS}"


def test_a_pull_request_is_not_closed_if_somebody_has_pushed(
    mirrors, task, work, github, upstream, tmp_path
):
    run = published(mirrors, task, work)
    push_of_another(upstream, task, tmp_path)
    assert undo(mirrors, run).state == "refused"
    assert github.pull_requests[0]["state"] == "open"


# --- kept changes ---------------------------------------------------------------------------------
def test_a_change_that_was_not_pushed_is_discarded_at_once(mirrors, task, work, upstream):
    run = work(task)
    done(task)
    RunChange.objects.update(note="Not pushed yet: odd")
    row = undo(mirrors, run)
    assert (row.state, tip(upstream, task), task_diff(task)) == ("done", "", b"")
    assert isinstance(publish(mirrors, TaskRun.objects.get(), confirmed=True), KeptAsDiff)
    published(mirrors, task, work, "later")
    assert files(upstream, task) == ["README.md", "later"]


@pytest.mark.parametrize(
    "fields", [{"note": ""}, {"note": "x", "agreed_at": timezone.now()}], ids=["first", "agreed"]
)
def test_a_change_that_is_being_pushed_has_to_wait(task, work, fields):
    run = work(task)
    done(task)
    RunChange.objects.update(**fields)
    assert undoing.ask(run.pk, "U1") is UndoRefusal.AT_WORK
    assert not ChangeUndo.objects.exists()


def test_a_change_is_not_undone_while_the_task_works(mirrors, task, work):
    run = published(mirrors, task, work)
    TaskRun.objects.create(task=task, message_ts="9.0", request="x", state="running")
    assert undoing.ask(run.pk, "U1") is UndoRefusal.AT_WORK


def test_a_turn_waits_while_a_change_is_undone(mirrors, task, work):
    undoing.ask(published(mirrors, task, work).pk, "U1")
    with pytest.raises(CheckoutFailed) as waiting:
        prepare(mirrors, task)
    assert not waiting.value.permanent


# --- repeated and interrupted ---------------------------------------------------------------------
STEPS = ["restore_change", "revert_change", "push", "_close_pull_request", "_end"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_dies_at_any_step_is_finished_by_the_next(
    mirrors, task, work, github, upstream, monkeypatch, step, when
):
    run = published(mirrors, task, work)
    asked = undoing.ask(run.pk, "U1")
    call = getattr(undoing, step)

    def die(*given, **named):
        if when == "after":
            call(*given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(undoing, step, die)
        with pytest.raises(KeyboardInterrupt):
            undoing.perform(mirrors, ChangeUndo.objects.get())
    shutil.rmtree(mirrors.directory)  # the next process is on another machine
    row = ChangeUndo.objects.get()
    if row.state == ChangeUndo.State.WANTED:
        undoing.perform(mirrors, row)
    row = ChangeUndo.objects.get()
    assert (row.pk, row.state) == (asked.pk, "done")
    assert run_git(upstream, "rev-list", "--count", task.branch.name) == "3"
    assert github.pull_requests[0]["state"] == "closed"
    assert "The pull request is closed" in row.outcome


@pytest.mark.usefixtures("no_github")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_that_dies_around_the_push_without_a_pull_request(
    mirrors, task, work, upstream, monkeypatch, when
):
    first = published(mirrors, task, work)
    run = published(mirrors, task, work, "second")
    undoing.ask(run.pk, "U1")
    put_back = undoing.put_back

    def die(*given, **named):
        if when == "after":
            put_back(*given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(undoing, "put_back", die)
        with pytest.raises(KeyboardInterrupt):
            undoing.perform(mirrors, ChangeUndo.objects.get())
    undoing.perform(mirrors, ChangeUndo.objects.get())
    assert ChangeUndo.objects.get().state == "done"
    assert tip(upstream, task) == first.change.commit


@pytest.mark.usefixtures("no_github")
def test_another_persons_push_on_top_of_our_own_is_not_blamed(
    mirrors, task, work, upstream, tmp_path
):
    run = published(mirrors, task, work)
    undoing.ask(run.pk, "U1")
    ChangeUndo.objects.update(push_began_at=timezone.now())
    push_of_another(upstream, task, tmp_path)
    undoing.perform(mirrors, ChangeUndo.objects.get())
    assert ChangeUndo.objects.get().outcome.endswith("Look whether the change is in it.")


def test_asking_again_finds_the_same_row(mirrors, task, work):
    run = published(mirrors, task, work)
    assert undoing.ask(run.pk, "U1") == undoing.ask(run.pk, "U1")
    undo(mirrors, run)
    assert undoing.ask(run.pk, "U1").state == "done"


@pytest.mark.django_db(transaction=True)
def test_two_machines_at_once_undo_it_once(mirrors, task, work, github, upstream, tmp_path):
    run = published(mirrors, task, work)
    undoing.ask(run.pk, "U1")
    machines = [replace(mirrors, directory=tmp_path / f"machine{number}") for number in range(3)]

    def perform(each) -> None:
        try:
            undoing.perform(each, ChangeUndo.objects.get())
        except (PublishingFailed, CheckoutFailed):  # as a lock of the other's push may cause
            pass
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(perform, machines))
    row = ChangeUndo.objects.get()
    assert row.state == "done"
    assert run_git(upstream, "rev-list", "--count", task.branch.name) == "3"


# --- what GitHub and git answer: the table in docs/repositories.md --------------------------------
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (fake_github.bad_credentials(), "GitHub does not accept the credential"),
        (fake_github.not_accessible(), "GitHub does not allow it"),
        (fake_github.not_found(), "GitHub has no such pull request"),
        (fake_github.invalid("no"), "GitHub refused it"),
    ],
)
def test_a_pull_request_that_cannot_be_closed_is_reported_as_open(
    mirrors, task, work, github, upstream, fault, words
):
    run = published(mirrors, task, work)
    github.fail_next("PATCH", PULL, fault)
    row = undo(mirrors, run)
    assert (row.state, files(upstream, task)) == ("done", ["README.md"])
    assert f"The pull request could not be closed, because {words}" in row.outcome


@pytest.mark.parametrize("method", ["GET", "PATCH"])
@pytest.mark.parametrize(
    "fault",
    [
        fake_github.rate_limit(),
        fake_github.secondary_limit(),
        fake_github.too_many_requests(),
        fake_github.server_error(),
        fake_github.server_error(done=True),
    ],
)
def test_a_temporary_failure_is_tried_again_by_the_sweep(
    mirrors, task, work, github, upstream, method, fault
):
    run = published(mirrors, task, work)
    github.fail_next(method, PULL, fault)
    asked = undoing.ask(run.pk, "U1")
    with pytest.raises(PublishingFailed):
        undoing.perform(mirrors, asked)
    undoing.perform(mirrors, ChangeUndo.objects.get())
    assert ChangeUndo.objects.get().state == "done"
    assert github.pull_requests[0]["state"] == "closed"


def test_an_answer_that_cannot_be_read_is_not_believed(mirrors, task, work, github):
    run = published(mirrors, task, work)
    github.fail_next("PATCH", PULL, fake_github.nonsense())
    with pytest.raises(PublishingFailed):
        undo(mirrors, run)
    assert github.pull_requests[0]["state"] == "open"


def test_the_last_attempt_says_that_the_pull_request_is_open(mirrors, task, work, github):
    run = published(mirrors, task, work)
    github.fail_next("PATCH", PULL, fake_github.server_error())
    row = undo(mirrors, run, last_attempt=True)
    assert row.state == "done"
    assert "could not be closed, because GitHub answered with 502" in row.outcome


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'error: GH006: Protected branch update failed.'; exit 1", "protect the branch"),
        ("echo no; exit 1", "The repository refused the push"),
    ],
)
def test_a_repository_that_refuses_the_push_changes_nothing(
    mirrors, task, work, github, upstream, script, words
):
    run = published(mirrors, task, work)
    path = upstream / "hooks" / "pre-receive"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    row = undo(mirrors, run)
    assert (row.state, tip(upstream, task)) == ("refused", run.change.commit)
    assert words in row.outcome
    assert github.pull_requests[0]["state"] == "open"
    assert prepare(mirrors, task)[1].commit == run.change.commit


def test_a_credential_without_permission_to_push_changes_nothing(mirrors, task, work, github):
    run = published(mirrors, task, work)
    github.status = 403
    row = undo(mirrors, run)
    assert row.state == "refused"
    assert "no permission to push" in row.outcome


def test_a_host_that_does_not_answer_is_tried_again(mirrors, task, work, github):
    run = published(mirrors, task, work)
    github.status = 503
    asked = undoing.ask(run.pk, "U1")
    with pytest.raises((PublishingFailed, CheckoutFailed)):
        undoing.perform(mirrors, asked)
    assert ChangeUndo.objects.get().state == "wanted"
    github.status = 0
    undoing.perform(mirrors, ChangeUndo.objects.get())
    assert ChangeUndo.objects.get().state == "done"


def test_a_repository_that_takes_no_pushes_any_more_changes_nothing(mirrors, task, work):
    run = published(mirrors, task, work)
    task.repository.credential = None
    task.repository.save()
    assert undo(mirrors, run).state == "refused"

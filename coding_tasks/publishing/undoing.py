"""Undo the change of a run, on its branch and in its pull request.

A row first says what is to be done, so every step can be repeated.
"""

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from coding_tasks.failures import PublishingFailed
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.models.kept_changes import ChangeUndo, RunChange, TaskBranch
from coding_tasks.publishing import undone
from coding_tasks.publishing.branches import branch_of
from coding_tasks.publishing.github import GitHub, GitHubFailed
from coding_tasks.publishing.outcomes import Rejected, Rejection, UndoRefusal
from coding_tasks.publishing.pushes import Pushed, push, put_back
from coding_tasks.publishing.remotes import api_url_of, name_on_github, remote_of, takes_pushes
from coding_tasks.repositories.changes import restore_change, revert_change
from coding_tasks.repositories.mirrors import Mirrors
from coding_tasks.repositories.remotes import Remote
from coding_tasks.storable import storable

State = ChangeUndo.State
# What git says while somebody else is pushing to a branch that exists.
_LOCKED = ("cannot lock ref", "failed to update ref")


@transaction.atomic
def ask(run_id: UUID, asked_by: str) -> ChangeUndo | UndoRefusal:
    """Record once that somebody wants a run's change undone; return the row, or why it cannot be.

    A change whose push never began is undone at once. Pushes lock the same row.
    """
    run = TaskRun.objects.get(pk=run_id)
    task = CodingTask.objects.select_for_update().get(pk=run.task_id)
    if known := ChangeUndo.objects.filter(run=run).first():
        return known
    change = RunChange.objects.filter(run=run).first()
    if change is None:
        return UndoRefusal.NO_CHANGE
    if task.runs.filter(state__in=TaskRun.UNFINISHED).exists() or _is_being_pushed(change):
        return UndoRefusal.AT_WORK
    if undone.remaining(task).last() != change:
        return UndoRefusal.BUILT_ON
    undo = ChangeUndo.objects.create(run=run, asked_by=asked_by)
    if change.pushed_at is None and change.push_began_at is None:
        _end(undo, State.DONE, "The change is discarded. It had not been pushed.")
    return undo


def perform(mirrors: Mirrors, undo: ChangeUndo, *, last_attempt: bool = False) -> None:
    """Undo the pushed change that the row names, and record what came of it.

    Calling this again goes on where an earlier call ended. Raises `PublishingFailed` and
    `CheckoutFailed`. At the `last_attempt`, a pull request that cannot be closed is an outcome.
    """
    run = undo.run
    change = RunChange.objects.filter(run=run).first()
    if change is None:
        _end(undo, State.REFUSED, "I changed nothing: the change was erased here.")
        return
    task = run.task
    branch = branch_of(task)
    if not takes_pushes(task.repository_to_change):
        _end(undo, State.REFUSED, "I changed nothing: no credential for pushing is stored here.")
        return
    remote = remote_of(task.repository_to_change)
    if branch.pull_request and _is_merged(task, remote, branch.pull_request):
        merged = f"the pull request is merged: {branch.pull_request}"
        _end(undo, State.REFUSED, f"I changed nothing: {merged}")
        return
    pushed = _change_branch(mirrors, remote, undo, change, branch)
    if isinstance(pushed, Rejected):
        _end(undo, State.REFUSED, _why_refused(undo, pushed, branch.name))
        return
    words = _what_was_done(undo, change, branch.name)
    closed = False
    if branch.pull_request:
        closed, said = _close_pull_request(task, remote, branch, change, last_attempt)
        words = f"{words} {said}"
    with transaction.atomic():
        _end(undo, State.DONE, words)
        if closed:
            TaskBranch.objects.filter(pk=branch.pk).update(pull_request="")


def give_up(undo: ChangeUndo, reason: str) -> None:
    """Record that a change could not be undone, because the repository refuses or is away."""
    if undo.push_began_at is None:
        _end(undo, State.REFUSED, f"I changed nothing: {reason}.")
    else:
        _end(undo, State.REFUSED, f"I don't know whether the branch was changed: {reason}.")


def _is_being_pushed(change: RunChange) -> bool:
    if change.pushed_at is not None:
        return False
    agreed = change.agreed_at is not None and change.settled_at is None
    return agreed or not change.note


def _change_branch(
    mirrors: Mirrors, remote: Remote, undo: ChangeUndo, change: RunChange, branch: TaskBranch
) -> Pushed | Rejected:
    """Make the branch as it was before the change, unless it is already, or somebody has pushed."""
    was = undone.tip_with(change)
    if change.pushed_at is None and _has_not_arrived(mirrors, remote, change, branch):
        return Pushed()
    if was == change.commit:
        restore_change(mirrors, remote, change.restorable())
    if (branch.pull_request or was != change.commit) and not undo.revert_commit:
        # Others may have fetched a proposed branch, so its history is only added to.
        reverted = revert_change(mirrors, remote, change.restorable(), was, undo.asked_at)
        undo.revert_commit = reverted
        undo.save(update_fields=["revert_commit"])
    to = undo.revert_commit or undone.commit_before(change)
    tip = mirrors.remote_tip(remote, branch.name)
    if tip == to:
        return Pushed()
    if tip != was:
        return Rejected(Rejection.NON_FAST_FORWARD, "")
    if to and not undo.revert_commit:
        mirrors.ensure(remote, to)
    if undo.push_began_at is None:
        undo.push_began_at = timezone.now()
        undo.save(update_fields=["push_began_at"])
    if undo.revert_commit:
        revert_change(mirrors, remote, change.restorable(), was, undo.asked_at)
        pushed = push(mirrors, remote, to, branch.name)
    else:
        pushed = put_back(mirrors, remote, branch.name, was=was, to=to)
    if isinstance(pushed, Rejected) and mirrors.remote_tip(remote, branch.name) == to:
        return Pushed()  # another machine did the same at the same time
    if isinstance(pushed, Rejected) and any(sign in pushed.message for sign in _LOCKED):
        raise PublishingFailed(pushed.message)
    return pushed


def _has_not_arrived(
    mirrors: Mirrors, remote: Remote, change: RunChange, branch: TaskBranch
) -> bool:
    """Return whether the branch is as before a push whose outcome we don't know."""
    return mirrors.remote_tip(remote, branch.name) in ("", undone.commit_before(change))


def _is_merged(task: CodingTask, remote: Remote, address: str) -> bool:
    if (hub := _github(task, remote)) is None:
        return False
    try:
        return hub.is_merged(name_on_github(task.repository_to_change), address)
    except GitHubFailed as error:
        if error.permanent:
            return False  # it may be gone, which makes no difference to the branch
        raise PublishingFailed(str(error), retry_after=error.retry_after) from error


def _close_pull_request(
    task: CodingTask, remote: Remote, branch: TaskBranch, change: RunChange, last_attempt: bool
) -> tuple[bool, str]:
    """Close the pull request if nothing else is in it; return whether it is, and a sentence."""
    address = branch.pull_request
    others = undone.remaining(task).exclude(pk=change.pk).exclude(pushed_at=None)
    if others.exists():
        return False, f"The pull request stays open, because it has earlier changes: {address}"
    if (hub := _github(task, remote)) is None:
        return False, f"I have no credential to close the pull request: {address}"
    try:
        hub.close(name_on_github(task.repository_to_change), address)
    except GitHubFailed as error:
        if not error.permanent and not last_attempt:
            raise PublishingFailed(str(error), retry_after=error.retry_after) from error
        return False, f"The pull request could not be closed, because {error}: {address}"
    return True, f"The pull request is closed: {address}"


def _github(task: CodingTask, remote: Remote) -> GitHub | None:
    api_url = api_url_of(task.repository_to_change)
    return GitHub(api_url, remote.login.password) if api_url and remote.login else None


def _what_was_done(undo: ChangeUndo, change: RunChange, branch: str) -> str:
    if undo.revert_commit:
        commit = undo.revert_commit[:12]
        return f"The change is undone by the commit {commit} on the branch `{branch}`."
    if undone.commit_before(change):
        return f"The change is undone: the branch `{branch}` is as it was before."
    return f"The change is undone: the branch `{branch}` had no other change and is deleted."


def _why_refused(undo: ChangeUndo, rejected: Rejected, branch: str) -> str:
    if rejected.reason is not Rejection.NON_FAST_FORWARD:
        return f"I changed nothing. {rejected.message}"
    if undo.push_began_at is not None:  # an earlier attempt may be below these commits
        return f"The branch `{branch}` has other commits by now. Look whether the change is in it."
    return f"I changed nothing: somebody has pushed to the branch `{branch}` since."


def _end(undo: ChangeUndo, state: str, outcome: str) -> None:
    """Record the end of an undo, unless another process did."""
    ended = {"state": state, "outcome": storable(outcome)[:500], "ended_at": timezone.now()}
    ChangeUndo.objects.filter(pk=undo.pk, state=State.WANTED).update(**ended)
    undo.refresh_from_db()

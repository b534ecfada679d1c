"""Keep the changes of runs, and publish them: a push, and a pull request."""

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone

from coding_tasks.failures import CheckoutFailed, PublishingFailed
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.models.kept_changes import RunChange, TaskBranch
from coding_tasks.publishing import undone
from coding_tasks.publishing.branches import branch_of
from coding_tasks.publishing.claims import claim_push
from coding_tasks.publishing.github import GitHub, GitHubFailed, PullRequestDraft
from coding_tasks.publishing.outcomes import (
    ConfirmationNeeded,
    KeptAsDiff,
    Outcome,
    Published,
    Rejected,
)
from coding_tasks.publishing.pushes import push
from coding_tasks.publishing.remotes import (
    api_url_of,
    name_on_github,
    remote_of,
    remote_without_login,
    takes_pushes,
)
from coding_tasks.publishing.secrets import find_secrets
from coding_tasks.repositories.changes import Change, restore_change
from coding_tasks.repositories.git import printable
from coding_tasks.repositories.mirrors import Base, Mirrors
from coding_tasks.repositories.remotes import Remote

_MOST_OF_A_KIND = 3
_MOST_QUESTIONS = 20
_LONGEST_PATH = 200
_RUNS_IN_CI = re.compile(
    r"^\.github/(workflows|actions)(/|$)|^\.(circleci|buildkite|gitea|forgejo|woodpecker)(/|$)"
    r"|(^|/)(\.gitlab-ci\.ya?ml|Jenkinsfile|azure-pipelines\.ya?ml|bitbucket-pipelines\.yml"
    r"|\.travis\.yml|appveyor\.yml|\.drone\.yml)$"
)


def prepare(mirrors: Mirrors, task: CodingTask) -> tuple[Remote, Base]:
    """Return the remote of a task, and the commit that its next run starts from.

    Commits that are not pushed and not on this machine are made again. Raises `CheckoutFailed`.
    """
    remote = remote_of(task.repository_to_change)
    branch = branch_of(task)
    base = mirrors.update(remote, branch.name)
    if undone.is_open(task):
        raise CheckoutFailed("a change of this task is being undone")
    newest = undone.remaining(task).last()
    if newest is not None and (waiting := _unpushed(newest)):
        _restore(mirrors, remote, waiting)
        base = mirrors.update(remote, branch.name)
    base = _without_undone(mirrors, remote, task, base)
    if base.branch != branch.base_branch:
        TaskBranch.objects.filter(pk=branch.pk).update(base_branch=base.branch)
    return remote, base


def _without_undone(mirrors: Mirrors, remote: Remote, task: CodingTask, base: Base) -> Base:
    """Return where the next run starts if `base` is a commit that was undone.

    Mirrors still have such commits at the tips of their branches.
    """
    changes = undone.without_revert(task)
    by_commit = {row.commit: row for row in changes}
    commit = base.commit
    while row := by_commit.pop(commit, None):
        commit = undone.commit_before(row)
    if commit == base.commit:
        return base
    if not commit:
        return mirrors.update(remote)
    mirrors.ensure(remote, commit)
    return Base(commit, base.branch)


def require_base(mirrors: Mirrors, task: CodingTask, commit: str) -> Remote:
    """Return the remote of a task, whose mirror has the commit that the task's run began at.

    The repository is asked only if this machine lacks the commit. Raises `CheckoutFailed`.
    """
    remote = remote_without_login(task.repository_to_change)
    return remote if mirrors.has(remote, commit) else prepare(mirrors, task)[0]


def record_change(run: TaskRun, change: Change) -> RunChange:
    """Keep the change that a run made, once, with what to ask before it is published."""
    row = RunChange.of(change)
    row.run = run
    row.questions = list(_questions(change))
    fields = {
        field.attname: getattr(row, field.attname)
        for field in RunChange._meta.concrete_fields
        if field.attname not in ("id", "run_id")
    }
    kept, _ = RunChange.objects.get_or_create(run=run, defaults=fields)
    return kept


def publish(
    mirrors: Mirrors,
    run: TaskRun,
    *,
    thread_url: str = "",
    confirmed: bool = False,
    last_attempt: bool = False,
) -> Outcome:
    """Push the change of a run, with earlier ones that were not pushed, and open a pull request.

    Calling this again finds the same branch and the same pull request. Raises `PublishingFailed`,
    and `CheckoutFailed` if the repository cannot be reached. At the `last_attempt` a pushed change
    without a pull request is an outcome, not a failure.
    """
    task = run.task
    repository = task.repository_to_change
    if not takes_pushes(repository):
        return KeptAsDiff(f"No credential for pushing to {repository.full_name} is stored here.")
    unpushed = _unpushed(run.change)
    # The newest change first: the questions about the others were asked before.
    questions = [question for row in reversed(unpushed) for question in row.questions]
    if questions and not confirmed:
        return ConfirmationNeeded(tuple(dict.fromkeys(questions))[:_MOST_QUESTIONS])
    remote = remote_of(repository)
    branch = branch_of(task)
    commit = run.change.commit
    if unpushed:
        _restore(mirrors, remote, unpushed)
        if not claim_push(run):
            what = "change was undone" if undone.is_asked(run) else "work was stopped"
            return KeptAsDiff(f"The {what} first.")
        pushed = push(mirrors, remote, commit, branch.name)
        if isinstance(pushed, Rejected):
            return pushed
        RunChange.objects.filter(pk__in=[row.pk for row in unpushed]).update(
            pushed_at=timezone.now()
        )
        TaskBranch.objects.filter(pk=branch.pk).update(pushed_commit=commit)
    try:
        address, note = _pull_request(task, remote, branch, thread_url)
    except PublishingFailed as error:
        if not last_attempt:
            raise
        address, note = "", f"There is no pull request: {error}."
    return Published(branch.name, commit, address, note)


def task_diff(task: CodingTask) -> bytes:
    """Return the changes of a task as patches, in order, without those that were undone.

    `git apply` takes them together.
    """
    return b"".join(row.patch for row in undone.remaining(task))


def _unpushed(newest: RunChange) -> list[RunChange]:
    """Return the change and those below it, as far as they are not pushed, oldest first."""
    waiting = RunChange.objects.filter(run__task__runs=newest.run, pushed_at=None)
    by_commit = {row.commit: row for row in waiting}
    found = []
    commit = newest.commit
    while row := by_commit.pop(commit, None):
        found.append(row)
        commit = row.parent
    return found[::-1]


def _restore(mirrors: Mirrors, remote: Remote, rows: Iterable[RunChange]) -> None:
    """Make the commits again that this machine does not have."""
    for row in rows:
        restore_change(mirrors, remote, row.restorable())


def _questions(change: Change) -> Iterator[str]:
    """Return why somebody has to agree before the change is published.

    There are only a few of each kind, so that many of a harmless kind cannot hide another kind.
    """
    paths = [printable(file.path)[:_LONGEST_PATH] for file in change.files]
    yield from _few(
        [
            f"`{paths[finding.file]}` (line {finding.line}) seems to contain {finding.name}."
            for finding in find_secrets(change.added_text)
        ],
        "More lines seem to contain secrets.",
    )
    most = settings.PUBLISH_MOST_FILES
    if len(paths) > most:
        yield f"The change touches {len(paths)} files, more than {most}."
    yield from _few(
        [
            f"`{path}` decides what runs in the repository's pipelines."
            for path, file in zip(paths, change.files, strict=True)
            if _RUNS_IN_CI.search(file.path)
        ],
        "More files decide what runs in the repository's pipelines.",
    )


def _few(questions: Sequence[str], more: str) -> Sequence[str]:
    """Return the first few questions, followed by `more` if there are others."""
    return [*questions[:_MOST_OF_A_KIND], *[more] * (len(questions) > _MOST_OF_A_KIND)]


def _pull_request(
    task: CodingTask, remote: Remote, branch: TaskBranch, thread_url: str
) -> tuple[str, str]:
    """Return the address of the pull request, or why there is none. Raises `PublishingFailed`."""
    api_url = api_url_of(task.repository_to_change)
    if not api_url or remote.login is None:
        return "", ""
    branch.refresh_from_db()
    if not branch.base_branch or branch.base_branch == branch.name:
        return "", "There is no pull request: the repository has no default branch to merge into."
    draft = PullRequestDraft(
        name_on_github(task.repository_to_change),
        branch.name,
        branch.base_branch,
        task.title,
        _body(task, thread_url),
    )
    try:
        address = GitHub(api_url, remote.login.password).pull_request(draft)
    except GitHubFailed as error:
        if not error.permanent:
            raise PublishingFailed(str(error), retry_after=error.retry_after) from error
        return "", f"There is no pull request: {error}."
    TaskBranch.objects.filter(pk=branch.pk).update(pull_request=address)
    return address, ""


def _body(task: CodingTask, thread_url: str) -> str:
    """Return the text of a pull request. Nothing of it was written by people or by the agent."""
    signature = f"Task `{task.pk}`, done by {settings.BOT_NAME}."
    if not task.has_thread:
        return f"Asked for over {task.get_origin_display()}.\n\n{signature}"
    plain = urlsplit(thread_url).scheme in ("http", "https") and thread_url.isprintable()
    asked = f"Asked for in [this thread]({thread_url})." if plain else "Asked for in a thread."
    return f"{asked}\n\n{signature}"

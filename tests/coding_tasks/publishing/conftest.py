"""A task on a repository that a fake GitHub serves, and mirrors for it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coding_tasks.models import CodingTask, GitCredential, Repository, TaskRun
from coding_tasks.publishing.publication import prepare, record_change
from coding_tasks.repositories.changes import ChangeRequest, Requester, commit_change
from coding_tasks.repositories.mirrors import Mirrors
from tests.fake_github import FakeGitHub
from tests.git_repositories import make_repository, run_git
from tests.git_server import TOKEN


@pytest.fixture
def github(tmp_path: Path, settings) -> Iterator[FakeGitHub]:
    settings.GIT_ALLOWED_PROTOCOLS = ["http", "file"]
    make_repository(tmp_path / "work", {"README.md": "# Shop\n"})
    (tmp_path / "served" / "acme").mkdir(parents=True)
    run_git(tmp_path, "clone", "--quiet", "--bare", "work", "served/acme/shop.git")
    with FakeGitHub(tmp_path / "served") as server:
        yield server


@pytest.fixture
def upstream(github) -> Path:
    return github.folder / "acme" / "shop.git"


@pytest.fixture
def mirrors(tmp_path: Path) -> Mirrors:
    return Mirrors(tmp_path / "data")


@pytest.fixture
def credential(project, github) -> GitCredential:
    return GitCredential.objects.create(
        project=project, name="bot", secret=TOKEN, api_url=github.api_url
    )


@pytest.fixture
def repository(project, github, credential) -> Repository:
    return Repository.objects.create(
        project=project,
        full_name="acme/shop",
        clone_url=f"{github.url}/acme/shop.git",
        credential=credential,
    )


@pytest.fixture
def task(workspace, repository) -> CodingTask:
    return make_task(workspace, repository, "Add a --version flag")


def make_task(workspace, repository, title: str) -> CodingTask:
    number = CodingTask.objects.count()
    return CodingTask.objects.create(
        project=repository.project,
        repository=repository,
        workspace=workspace,
        channel_id="C1",
        thread_ts=f"{number}.0",
        owner_slack_user_id="U1",
        title=title,
        workflow_id=f"workflow-{number}",
    )


@pytest.fixture
def work(mirrors) -> Callable[..., TaskRun]:
    """Return a function that makes a run of the task, whose agent added a file."""

    def make(
        task: CodingTask,
        path: str = "version.py",
        text: str = "print(1)",
        *,
        lines: int = 1,
        mode: str = "100644",
        before: str = "",
    ) -> TaskRun:
        run = TaskRun.objects.create(task=task, message_ts=f"{task.runs.count()}.0", request="do")
        remote, base = prepare(mirrors, task)
        patch = (
            f"{before}diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n"
            f"+++ b/{path}\n@@ -0,0 +1,{lines} @@\n+{text}\n"
        )
        change = commit_change(
            mirrors,
            remote,
            ChangeRequest(
                base=base,
                branch=task.branch.name,
                patch=patch.encode(),
                subject=task.title,
                requester=Requester("Ada"),
                committed_at=run.created_at,
            ),
        )
        assert change is not None
        record_change(run, change)
        return run

    return make

"""A repository on a fake GitHub that the bot of a whole stack may work on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack.demo_model.editing import PROGRAM
from tests.devstack.stack import Stack
from tests.fake_github import FakeGitHub
from tests.git_repositories import make_repository, run_git
from tests.git_server import TOKEN

NAME = "octo/shop"
_ADD = """
from coding_tasks.models import GitCredential, Repository
from projects.models import Project
project = Project.objects.get(pk={project})
credential = GitCredential.objects.create(
    project=project, name="octo", secret={token!r}, api_url={api!r})
Repository.objects.create(
    project=project, full_name={name!r}, clone_url={clone!r}, credential=credential)
"""


@contextmanager
def serving_shop(folder: Path) -> Iterator[FakeGitHub]:
    """Serve a web shop as `octo/shop` until the block ends."""
    make_repository(folder / "work", {"shop/__main__.py": PROGRAM, "README.md": "# Shop\n"})
    (folder / "served" / "octo").mkdir(parents=True)
    run_git(folder, "clone", "--quiet", "--bare", "work", "served/octo/shop.git")
    with FakeGitHub(folder / "served") as github:
        yield github


def add_shop(stack: Stack, github: FakeGitHub) -> None:
    """Add the shop to the stack's project. GIT_ALLOWED_PROTOCOLS must contain http."""
    adding = _ADD.format(
        project=stack.project["project_id"],
        token=TOKEN,
        api=github.api_url,
        name=NAME,
        clone=clone_url(github),
    )
    stack.manage("shell", "--verbosity", "0", "-c", adding)


def clone_url(github: FakeGitHub) -> str:
    """Return the address from which git fetches the shop."""
    return f"{github.url}/{NAME}.git"


def commits(github: FakeGitHub, branch: str) -> list[str]:
    """Return the subjects of the commits that a branch has and `main` has not, oldest first."""
    served = github.folder / f"{NAME}.git"
    return run_git(served, "log", "--reverse", "--format=%s", f"main..{branch}").splitlines()

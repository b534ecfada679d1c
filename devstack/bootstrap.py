"""What the first run creates: tables, an admin, and a demo project with two repositories."""

import asyncio
import json
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from devstack import commands
from devstack.environment import DJANGO, WEB
from devstack.private_file import write_private
from devstack.servers import Program
from devstack.settings import Stack
from devstack.supervision.supervisor import StackError, Supervisor

ORGANIZATION = "Acme"
PROJECT = "Acme coding bot"
ADMIN = "admin"
MONTHLY_CREDITS = "100"
GENERAL = "C1"

REPOSITORIES = {
    "acme/web-shop": {
        "README.md": "# Web shop\n\nThe shop's pages: catalogue, basket and checkout.\n",
        "shop/basket.py": (
            '"""The basket."""\n\n\ndef total(prices: list[int]) -> int:\n'
            '    """Return the sum in cents."""\n    return sum(prices)\n'
        ),
        "shop/__main__.py": (
            '"""Print the total of a basket in cents: `python3 -m shop 100 250`."""\n\n'
            "import argparse\n\nfrom shop.basket import total\n\n"
            'parser = argparse.ArgumentParser(prog="shop")\n'
            'parser.add_argument("prices", type=int, nargs="*")\n'
            "print(total(parser.parse_args().prices))\n"
        ),
    },
    "acme/payments-api": {
        "README.md": "# Payments API\n\nTakes payments and sends invoices.\n",
        "payments/invoice.py": (
            '"""Invoices."""\n\n\ndef number(year: int, count: int) -> str:\n'
            '    """Return the invoice number."""\n    return f"{year}-{count:05d}"\n'
        ),
    },
}


@dataclass(frozen=True)
class DemoProject:
    """The project that the first run created, and its credentials."""

    database_url: str
    organization_id: str
    project_id: int
    api_token: str
    personal_api_key: str


async def migrate(supervisor: Supervisor) -> None:
    """Apply the database migrations."""
    supervisor.console.say("preparing the database")
    quiet = [*commands.MIGRATE, "--verbosity", "0"]
    await supervisor.run_once(Program("migrate", quiet, reads=DJANGO))


async def check_web(supervisor: Supervisor) -> None:
    """Raise `StackError` if the web server would not start with these settings."""
    await supervisor.run_once(Program("check", commands.CHECK_WEB, reads=WEB), capture=True)


async def create_demo_project(supervisor: Supervisor, stack: Stack) -> DemoProject:
    """Return the demo project. Creates it and the admin, unless an earlier run did."""
    remembered = stack.directory / "project.json"
    if remembered.is_file():
        project = DemoProject(**json.loads(remembered.read_text()))
        if project.database_url == stack["DATABASE_URL"]:
            return project
    await _make_admin(supervisor, stack)
    repositories = await asyncio.to_thread(make_repositories, stack.directory / "repositories")
    options = ["--organization", ORGANIZATION, "--name", PROJECT, "--limit", MONTHLY_CREDITS]
    for name, path in repositories.items():
        options += ["--repository", f"{name}={path.as_uri()}"]
    if stack.starts_demo_slack:
        options += ["--slack-workspace", "T1", "--slack-bot-user", "UBOT"]
        options += ["--slack-bot-token", stack["DEMO_SLACK_BOT_TOKEN"]]
        options += ["--credits-channel", GENERAL, "--credits-approver", f"U1={ADMIN}"]
        # Mentions in one channel work at once; the other shows the classifier and the picker.
        options += ["--channel-default", f"{GENERAL}={next(iter(repositories))}"]
    made = await supervisor.run_once(
        Program(
            "bootstrap",
            ["python", "manage.py", "create_project", *options, "--json"],
            reads=DJANGO,
        ),
        capture=True,
    )
    project = DemoProject(stack["DATABASE_URL"], **json.loads(made))
    write_private(remembered, json.dumps(asdict(project), indent=1))
    return project


async def _make_admin(supervisor: Supervisor, stack: Stack) -> None:
    superuser = {
        "DJANGO_SUPERUSER_USERNAME": ADMIN,
        "DJANGO_SUPERUSER_PASSWORD": stack["ADMIN_PASSWORD"],
        "DJANGO_SUPERUSER_EMAIL": "admin@acme.example",
    }
    command = ["python", "manage.py", "createsuperuser", "--noinput"]
    program = Program("bootstrap", command, environment=superuser, reads=DJANGO)
    try:
        await supervisor.run_once(program)
    except StackError:
        supervisor.console.say("the database has an admin already; its password stays as it is")


def make_repositories(folder: Path) -> dict[str, Path]:
    """Create the demo's git repositories if needed; return their paths by full name."""
    if shutil.which("git") is None:
        raise StackError("git is missing; coding tasks clone repositories with it. Install git.")
    for name, files in REPOSITORIES.items():
        if not (folder / name).exists():
            _make_repository(folder / name, files)
    return {name: folder / name for name in REPOSITORIES}


def _make_repository(path: Path, files: dict[str, str]) -> None:
    unfinished = path.with_name(f"{path.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    for file, text in files.items():
        (unfinished / file).parent.mkdir(parents=True, exist_ok=True)
        (unfinished / file).write_text(text)
    identity = ["-c", "user.name=Demo", "-c", "user.email=demo@acme.example"]
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "."],
        [*identity, "commit", "--quiet", "--no-gpg-sign", "-m", "Begin"],
    ):
        subprocess.run(["git", *command], cwd=unfinished, check=True, env=_git_environment())
    unfinished.rename(path)


def _git_environment() -> dict[str, str]:
    """Return an environment in which git ignores the user's and the system's configuration."""
    kept = {"PATH": os.environ.get("PATH", ""), "HOME": os.devnull}
    return kept | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

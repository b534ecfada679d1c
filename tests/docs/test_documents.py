"""Everything that the documents name exists, and the commands in them work."""

import json
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command, get_commands, load_command_class

from billing import organizations
from devstack.env_file import write_env_file
from projects.models import Project
from quota.gate import check

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    *ROOT.glob("*.md"),
    *(path for folder in ("docs", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.md")),
]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}
TOP = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}


def found(pattern: str) -> Iterator[tuple[str, str]]:
    """Yield each match of the pattern, with the name of its document."""
    for name, text in TEXTS.items():
        for match in re.finditer(pattern, text, re.MULTILINE):
            yield name, match[1]


def test_there_are_documents():
    assert {
        "README.md",
        "SECURITY.md",
        "docs/operations.md",
        "docs/architecture.md",
    } <= TEXTS.keys()


def test_every_link_leads_somewhere():
    for name, target in found(r"\]\(([^)\s]+)\)"):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / name).parent / path if path else ROOT / name
        assert there.exists(), f"{name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
            assert anchor in slugs, f"{name}: {target}"


def test_every_named_file_exists():
    for name, path in found(r"`([\w.-]+/[\w./-]*)`"):
        near = (ROOT / path, (ROOT / name).parent / path, *ROOT.glob(f"*/{path}"))
        if path.partition("/")[0] in TOP or path.endswith((".py", ".md", ".lua", ".yml")):
            assert any(one.exists() for one in near), f"{name}: {path}"


def test_every_named_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for _, target in found(r"(?:`|^)make ([a-z-]+)")}
    assert {"up", "demo", "test", "lint", "bench", "help"} <= named | targets
    assert named <= targets


def test_every_named_management_command_exists():
    named = {command for _, command in found(r"manage\.py ([a-z_]+)")}
    assert {"create_project", "set_limit", "grant_credits", "quota_status"} <= named
    assert named <= get_commands().keys()


def test_each_of_our_commands_has_a_help_text(capsys):
    folders = (
        "config",
        "console",
        "billing",
        "quota",
        "workflows",
        "coding_tasks",
        "projects",
        "slack_bot",
    )
    ours = {name: app for name, app in get_commands().items() if app in folders}
    assert ours
    for name, app in ours.items():
        command = load_command_class(app, name)
        assert command.help, name
        with pytest.raises(SystemExit) as end:
            command.create_parser("manage.py", name).parse_args(["--help"])
        assert end.value.code == 0


def test_every_named_module_can_be_run():
    for name, module in found(r"python -m ((?:benchmarks|devstack|gateway)[\w.]*)"):
        if module.endswith("NAME"):
            continue
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), (name, module)


@pytest.mark.django_db
def test_the_readmes_commands_do_what_it_says(redis_client, capsys):
    project = organizations.create_project(
        organizations.create_organization("Acme"), "Acme coding bot"
    )
    blocks = re.findall(r"```console\n(.*?)```", TEXTS["README.md"], re.DOTALL)
    typed = [line for block in blocks for line in block.splitlines()]
    prefix = ".venv/bin/python manage.py "
    commands = [line.removeprefix(prefix) for line in typed if line.startswith(prefix)]
    rest = [line.split("#")[0].strip() for line in typed if not line.startswith(prefix)]
    assert rest == ["make up", "make test", "set -a; . .devstack/env; set +a"]

    seen = {}
    for line in commands:
        name, *arguments = shlex.split(line)
        arguments = [str(project.pk) if text == "1" else text for text in arguments]
        call_command(name, *arguments)
        seen[name] = capsys.readouterr().out, check(project).limited
    assert list(seen) == [
        "create_project",
        "quota_status",
        "set_limit",
        "grant_credits",
        "create_token",
    ]
    made = json.loads(seen["create_project"][0])
    assert Project.objects.get(pk=made["project_id"]).organization == project.organization
    assert "500.00" in seen["quota_status"][0]
    assert (seen["set_limit"][1], seen["grant_credits"][1]) == (True, False)
    assert seen["create_token"][0].startswith("pha_")


def test_a_shell_reads_the_stacks_environment_as_the_readme_says(tmp_path):
    values = {"PLAIN": "redis://127.0.0.1:6380/0", "ODD": 'it\'s $HOME & "more"', "EMPTY": ""}
    (tmp_path / ".devstack").mkdir()
    write_env_file(tmp_path / ".devstack" / "env", values)
    [line] = re.findall(r"^(set -a; .*)$", TEXTS["README.md"], re.MULTILINE)
    told = subprocess.run(
        ["sh", "-c", f"{line}; env -0"], cwd=tmp_path, env={}, capture_output=True, check=True
    )
    environment = dict(entry.split("=", 1) for entry in told.stdout.decode().split("\0") if entry)
    assert environment.items() >= values.items()


def test_the_backup_of_a_running_database_is_complete(tmp_path):
    [line] = re.findall(r"^(\.venv/bin/python -c .*backup.*)$", TEXTS["docs/operations.md"], re.M)
    (tmp_path / ".devstack").mkdir()
    running = sqlite3.connect(tmp_path / ".devstack" / "db.sqlite3", isolation_level=None)
    running.execute("PRAGMA journal_mode=WAL")
    running.execute("CREATE TABLE ledger (micro INTEGER)")
    running.execute("INSERT INTO ledger VALUES (12)")
    line = line.replace(".venv/bin/python", shlex.quote(sys.executable))
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)
    running.close()
    copy = sqlite3.connect(tmp_path / "backup.sqlite3")
    assert copy.execute("SELECT micro FROM ledger").fetchall() == [(12,)]
    copy.close()

"""Backup and restore as docs/operations.md describes them, with a gateway that goes on."""

import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
import redis
from django.core.management import call_command
from django.db import connection, connections

from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.models import UsageEvent
from billing.organizations import create_organization, create_project
from devstack.commands import WEB
from devstack.servers import Program, answers, free_port, redis_server
from gateway import keys
from projects.authentication import credentials
from projects.models import Project
from quota import gate
from quota.published import marker
from quota.published.reconciler import Reconciler
from quota.resources import AI_CREDITS
from tests import settings as suite
from tests.conftest import running, wait_until
from tests.gateway.conftest import gateway_program, messages_body, serving
from tests.gateway.fake_provider import FakeProvider

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
SECTION = DOCUMENT.partition("## Backup and restore")[2].partition("\n## ")[0]
CREDIT, COST = 1_000_000, 72_000  # micro-credits; a call of this test costs COST
LATER_CALLS = 20

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
    pytest.mark.skipif(
        suite.ON_POSTGRES and not (shutil.which("pg_dump") and shutil.which("pg_restore")),
        reason="pg_dump is missing",
    ),
]


# --- what the document says ----------------------------------------------------------------------
def documented(program: str) -> list[str]:
    """Return the command in the section's code blocks that starts with this program."""
    [line] = re.findall(rf"^ *{re.escape(program)} .*$", SECTION, re.M)
    return shlex.split(line)


def steps() -> list[list[str]]:
    """Return the commands of `manage.py` to run after the database was restored."""
    block = SECTION.partition("To restore")[2]
    return [
        shlex.split(line) for line in re.findall(r"^ *python manage\.py (.*?)\\?$", block, re.M)
    ]


def back_up(directory: Path) -> None:
    if suite.ON_POSTGRES:
        run_tool(documented("pg_dump"), directory)
    else:
        _, option, code = documented(".venv/bin/python")
        code = code.replace(".devstack/db.sqlite3", connection.settings_dict["NAME"])
        subprocess.run([sys.executable, option, code], cwd=directory, check=True)


def damage_and_restore(directory: Path) -> None:
    name = connection.settings_dict["NAME"]
    connections.close_all()
    if suite.ON_POSTGRES:
        with psycopg.connect(server_url("postgres"), autocommit=True) as server:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            server.execute(f'CREATE DATABASE "{name}"')
        run_tool(documented("pg_restore"), directory)
        return
    Path(name).write_bytes(b"damaged")
    with pytest.raises(sqlite3.DatabaseError), sqlite3.connect(name) as damaged:
        damaged.execute("SELECT 1 FROM billing_usageevent")
    damaged.close()
    for ending in ("-wal", "-shm"):
        Path(f"{name}{ending}").unlink(missing_ok=True)
    shutil.copy(directory / "backup.sqlite3", name)


def run_tool(command: list[str], directory: Path) -> None:
    url = server_url(connection.settings_dict["NAME"])
    words = [word.replace("$DATABASE_URL", url) for word in command]
    subprocess.run(words, cwd=directory, check=True, capture_output=True)


def server_url(database: str) -> str:
    return f"postgresql://postgres@127.0.0.1:{suite.POSTGRES_PORT}/{database}"


# --- the system ----------------------------------------------------------------------------------
class System:
    """A web process that can be stopped, and a gateway that is never stopped."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._log = directory / "web.log"
        self._port, gateway_port, redis_port = free_port(), free_port(), free_port()
        self._web = ExitStack()
        stack.callback(self._web.close)
        store = redis_server("redis", directory / "redis", redis_port)
        stack.enter_context(running(store, directory / "redis.log"))
        redis_url = f"redis://127.0.0.1:{redis_port}/0"
        self.store = stack.enter_context(redis.Redis.from_url(redis_url, decode_responses=True))
        provider = stack.enter_context(FakeProvider())
        self.start_web()
        program = gateway_program(
            gateway_port,
            redis_url,
            f"http://127.0.0.1:{self._port}",
            provider.url,
            GATEWAY_SERVICE_TOKEN="service-token-of-the-test-suite",
        )
        self.log = directory / "gateway.log"
        stack.enter_context(serving(program, self.log))
        url = f"http://127.0.0.1:{gateway_port}"
        self._http = stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=30))

    def start_web(self) -> None:
        argv = [sys.executable, "-m", *WEB, "--port", str(self._port)]
        url = f"http://127.0.0.1:{self._port}/_health"
        self._web.enter_context(running(Program("web", argv, lambda: answers(url)), self._log))

    def stop_web(self) -> None:
        self._web.close()

    def call(self, token: str) -> int:
        """Call the model through the gateway; return the status."""
        path, headers = "/slack_app/v1/messages", {"authorization": f"Bearer {token}"}
        return self._http.post(path, headers=headers, json=messages_body()).status_code

    def is_closed_for(self, project: Project) -> bool:
        return self.store.hget(keys.project(project.pk, AI_CREDITS), "broken") == "1"

    def delivered(self) -> bool:
        return self.store.xlen(keys.EVENTS) == 0


@pytest.fixture
def own_database(transactional_db, tmp_path: Path, monkeypatch) -> Iterator[None]:
    """On SQLite, use a file that no thread of an earlier test has open."""
    if suite.ON_POSTGRES:
        yield
        return
    name = str(tmp_path / "own.sqlite3")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM INTO %s", [name])
    connection.close()
    monkeypatch.setitem(connection.settings_dict, "NAME", name)
    yield
    connection.close()


@pytest.fixture
def system(own_database, redis_client, tmp_path: Path, monkeypatch) -> Iterator[System]:
    url = f"sqlite:///{connection.settings_dict['NAME']}"
    if suite.ON_POSTGRES:
        url = server_url(connection.settings_dict["NAME"])
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "config.settings")
    monkeypatch.setenv("DATABASE_URL", url)
    with ExitStack() as stack:
        yield System(tmp_path, stack)


def team(name: str, limit_micro: int) -> tuple[Project, str]:
    """Return a project with a limit, and the token of a run."""
    project = create_project(create_organization(name), "Bot")
    set_limit(project.organization, AI_CREDITS, limit_micro)
    token = credentials.mint_run_token(project, uuid.uuid4(), ["slack_app"], timedelta(days=1))
    return project, token


def booked(project: Project) -> int:
    return sum(
        UsageEvent.objects.filter(account__organization=project.organization).values_list(
            "credits_micro", flat=True
        )
    )


def test_after_a_restore_nobody_spends_what_only_the_lost_rows_allowed(
    system: System, tmp_path: Path
) -> None:
    acme, token = team("Acme", CREDIT)
    poor, poor_token = team("Poor", 0)
    Reconciler().tick()
    assert (system.call(token), system.call(poor_token)) == (200, 429)
    wait_until(lambda: booked(acme) == COST, what="the first booking")
    back_up(tmp_path)

    # Work goes on: top-ups, and calls that only they allow.
    for project in (acme, poor):
        grant_credits(project.organization, AI_CREDITS, 100 * CREDIT)
    wait_until(lambda: system.call(poor_token) == 200, what="the top-up reaching the gateway")
    for _ in range(LATER_CALLS):
        assert system.call(token) == 200
    wait_until(lambda: booked(acme) == (1 + LATER_CALLS) * COST, what="the later bookings")
    wait_until(lambda: booked(poor) == COST, what="the booking of the other team")

    system.stop_web()
    assert system.call(token) == 200  # its event waits in the gateway's Redis
    damage_and_restore(tmp_path)
    assert booked(acme) == COST

    # Somebody starts Tollgate without the other steps.
    system.start_web()
    wait_until(lambda: system.is_closed_for(acme), what="the gateway noticing")
    wait_until(lambda: system.is_closed_for(poor), what="the gateway noticing")
    assert {system.call(token) for _ in range(5)} == {503}
    assert {system.call(poor_token) for _ in range(5)} <= {429, 503}
    assert "was the database restored?" in system.log.read_text()
    wait_until(lambda: marker.current() is None, what="the marker's end, as no reconciler runs")
    assert gate.check(poor).limited
    Reconciler().tick()
    assert gate.check(poor).limited
    assert not gate.check(acme).limited

    for name, *arguments in steps():
        call_command(name, *arguments)
    wait_until(lambda: system.call(token) == 200, what="the gateway being open again")
    assert system.call(poor_token) == 429
    passed = 1
    while system.call(token) == 200:
        passed += 1
    wait_until(system.delivered, what="the delivery of all events")
    # What was delivered since the backup is lost, and the log says how much. The rest arrived.
    assert booked(acme) == (2 + passed) * COST <= CREDIT
    assert booked(poor) == 0
    call_command("verify_ledger")
    lines = [json.loads(line) for line in system.log.read_text().splitlines()]
    said = {line["account"]: line["credits"] for line in lines if "lacks" in line["event"]}
    assert said == {
        f"{acme.organization_id}:ai_credits": "1.440000",
        f"{poor.organization_id}:ai_credits": "0.072000",
    }

"""Each program of the stack sees only the environment variables that it needs."""

import asyncio
import io
import json
import os
import re
import sys
from pathlib import Path

import pytest

from devstack.bootstrap import DJANGO
from devstack.environment import GATEWAY, WEB, filter_environment
from devstack.isolation import throw_away_environment
from devstack.programs import server_programs, tollgate_programs
from devstack.servers import Program
from devstack.settings import ROOT, read
from devstack.supervision.console import Console
from devstack.supervision.supervisor import Supervisor

WHO_NEEDS_IT = {
    "ANTHROPIC_API_KEY": {"gateway"},
    "OPENAI_API_KEY": {"gateway"},
    "POSTHOG_API_KEY": {"gateway"},
    "GATEWAY_REDIS_URL": {"gateway"},
    "OTEL_EXPORTER_OTLP_HEADERS": {"gateway"},
    "SLACK_APP_TOKEN": {"sockets"},
    "SLACK_CLIENT_SECRET": {"web", "celery"},
    "METRICS_TOKEN": {"web", "gateway"},
    "GATEWAY_SERVICE_TOKEN": {"gateway", "web"},
    "SLACK_SIGNING_SECRET": {"web", "demo-slack"},
    "SECRET_KEY": {"web", "worker", "celery", "beat", "reconciler"},
    "DATABASE_URL": {"web", "worker", "celery", "beat", "reconciler"},
    "TEMPORAL_API_KEY": {"web", "worker", "agents", "celery"},
    "ADMIN_PASSWORD": set(),
    "AWS_SECRET_ACCESS_KEY": set(),
    "AWS_SESSION_TOKEN": set(),
    "GITHUB_TOKEN": set(),
    "GH_TOKEN": set(),
    "GEMINI_API_KEY": set(),
    "OPENROUTER_API_KEY": set(),
    "ANTHROPIC_AUTH_TOKEN": set(),
    "ANTHROPIC_ADMIN_KEY": set(),
    "OPENAI_ADMIN_KEY": set(),
    "CLAUDE_CODE_OAUTH_TOKEN": set(),
    "NPM_TOKEN": set(),
    "SSH_AUTH_SOCK": set(),
}


@pytest.mark.parametrize(("name", "needed_by"), WHO_NEEDS_IT.items())
def test_only_programs_that_need_a_secret_get_it(
    tmp_path: Path, name: str, needed_by: set[str]
) -> None:
    given = throw_away_environment(os.environ, str(tmp_path)) | {name: "the-secret"}
    stack = read(given)
    programs = [*server_programs(stack), *tollgate_programs(stack)]
    environment = given | stack.environment | {name: "the-secret"}
    seen = {
        program.name
        for program in programs
        if "the-secret"
        in (filter_environment(environment, program.reads) | program.environment).values()
    }
    assert seen == needed_by


@pytest.mark.parametrize(
    ("file", "names", "unneeded"),
    [
        # one port, for one process; the token is for another process
        ("config/settings.py", WEB, {"METRICS_PORT", "SLACK_APP_TOKEN"}),
        (
            "config/settings.py",
            DJANGO,
            {
                "SLACK_SIGNING_SECRET",
                "SLACK_APP_TOKEN",
                "SLACK_CLIENT_ID",
                "SLACK_CLIENT_SECRET",
                "GATEWAY_SERVICE_TOKEN",
                "METRICS_PORT",
                "METRICS_TOKEN",
                "NUM_PROXIES",
                "WEB_BODY_TIMEOUT",
                "PROMETHEUS_MULTIPROC_DIR",
            },
        ),
        ("gateway/settings.py", GATEWAY, set()),
    ],
)
def test_a_program_gets_every_variable_that_it_reads(
    file: str, names: frozenset[str], unneeded: set[str]
) -> None:
    read_there = set(
        re.findall(r'(?:env\.\w+\(\s*|several\(env, )"([A-Z_]+)"', (ROOT / file).read_text())
    )
    assert len(read_there) > 10
    assert filter_environment(dict.fromkeys(read_there, ""), names).keys() == read_there - unneeded


def test_a_running_program_has_only_its_own_variables() -> None:
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    program = Program("asked", [sys.executable, "-c", code], reads=frozenset({"MINE", "MY_*"}))
    environment = {**os.environ, "MINE": "1", "MY_OWN": "2", "NOT_MINE": "3", "AWS_TOKEN": "4"}

    async def run() -> bytes:
        async with Supervisor(environment, Console(io.StringIO())) as supervisor:
            return await supervisor.run_once(program, capture=True)

    seen = json.loads(asyncio.run(run()))
    assert (seen["MINE"], seen["MY_OWN"]) == ("1", "2")
    assert not {"NOT_MINE", "AWS_TOKEN"} & seen.keys()

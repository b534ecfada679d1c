"""Coding agents on the command line work through the gateway with its address and a token.

Agents that are not installed are skipped (`npm install -g @anthropic-ai/claude-code
@openai/codex`, `pip install mini-swe-agent`).
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.demo_model.app import DemoModel
from devstack.demo_model.script import Reply
from tests import settings as suite
from tests.conftest import wait_until
from tests.gateway.conftest import DENIED, World, world_of
from tests.gateway.threads import AsgiThread

REQUESTS = "tollgate_gateway_requests_total"
QUESTION = "What is in README.md?"
SENTENCE = "Your team has used its monthly Tollgate AI credits."
BASH = "```mswea_bash_command\n{}\n```"


def needs(program: str) -> pytest.MarkDecorator:
    """Return a marker that skips a test if the program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture(scope="module")
def model() -> DemoModel:
    return DemoModel()


@pytest.fixture(scope="module")
def agents(model: DemoModel) -> Iterator[World]:
    """A gateway in front of the demo model."""
    with (
        AsgiThread(model.app) as server,
        world_of(
            suite.DIRECTORY / "agents-gateway",
            ANTHROPIC_UPSTREAM_URL=server.url,
            OPENAI_UPSTREAM_URL=f"{server.url}/v1",
        ) as world,
    ):
        yield world


def run(argv: list[str], home: Path, **environment: str) -> tuple[str, float]:
    """Run an agent in its own folder; return its output and how many seconds it took."""
    began = time.monotonic()
    ran = subprocess.run(
        argv,
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    return ran.stdout + ran.stderr, time.monotonic() - began


def claude(world: World, token: str, home: Path) -> tuple[str, float]:
    return run(
        ["claude", "-p", QUESTION],
        home,
        ANTHROPIC_BASE_URL=f"{world.url}/slack_app",
        ANTHROPIC_AUTH_TOKEN=token,
    )


def codex(world: World, token: str, home: Path) -> tuple[str, float]:
    return run(
        ["codex", "exec", "--skip-git-repo-check", "-m", "gpt-5.1-codex",
         "-c", f'openai_base_url="{world.url}/slack_app/v1"', "-c", 'web_search="disabled"',
         QUESTION],
        home,
        CODEX_API_KEY=token,
    )  # fmt: skip


def mini(world: World, token: str, home: Path) -> tuple[str, float]:
    """By default it retries whatever fails, ignoring headers, so its setting turns that off."""
    return run(
        ["mini", "-m", "openai/gpt-4o", "-c", "mini_textbased", "-y", "--exit-immediately",
         "-t", QUESTION],
        home,
        OPENAI_BASE_URL=f"{world.url}/slack_app/v1",
        OPENAI_API_KEY=token,
        MSWEA_CONFIGURED="true",
        MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT="1",
    )  # fmt: skip


# The output of each when it works, and when credits are used up.
AGENTS = [
    pytest.param(claude, "[demo model]", SENTENCE, marks=needs("claude"), id="Claude Code"),
    pytest.param(codex, "[demo model]", SENTENCE, marks=needs("codex"), id="Codex CLI"),
    pytest.param(mini, "COMPLETE_TASK", SENTENCE, marks=needs("mini"), id="mini-swe-agent"),
]


@pytest.mark.parametrize(("agent", "answer", "denial"), AGENTS)
def test_an_agent_works_and_does_not_retry_a_denial(
    agents: World, model: DemoModel, tmp_path: Path, agent, answer: str, denial: str
) -> None:
    (tmp_path / "README.md").write_text("# A web shop\n")
    if agent is mini:
        model.script.add(
            Reply(BASH.format("cat README.md")),
            Reply(BASH.format("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT")),
        )
    project = agents.tollgate.project(credits=10_000)
    token = agents.tollgate.token(project)
    said, _ = agent(agents, token, tmp_path)
    assert answer in said, said
    wait_until(lambda: agents.tollgate.events_of(project), what="its calls being booked")
    assert agents.tollgate.credits_booked(project) > 0
    assert agents.settled(project)["held"] == 0

    agents.tollgate.limit(project)
    wait_until(lambda: agents.post(token).status_code == DENIED, what="the limit being known")
    before = agents.metric(REQUESTS)
    said, seconds = agent(agents, token, tmp_path)
    assert denial in " ".join(said.split()), said
    assert agents.metric(REQUESTS) - before <= 4, "it tried again"
    assert seconds < 60, "it waited"

"""Each installed agent, from a mention to a pull request: part of `make test-agents`."""

import os
from collections.abc import Iterator

import pytest

from coding_tasks.agents.registry import SHIPPED
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from devstack.isolation import throw_away_environment
from devstack.settings import agents_directory
from tests.conftest import wait_until
from tests.devstack.coding import NAME, add_shop, commits, serving_shop
from tests.devstack.stack import Stack
from tests.fake_github import FakeGitHub

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]

PREFIX = agents_directory(os.environ)
# `small` needs no installation. `test_whole_stack` has it.
AGENTS = [
    pytest.param(
        agent.name,
        id=agent.name,
        marks=pytest.mark.skipif(
            agent.why_missing(PREFIX) is not None, reason=str(agent.why_missing(PREFIX))
        ),
    )
    for agent in SHIPPED
    if agent.name != "small"
]
WITHIN = 120


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGitHub]:
    with serving_shop(tmp_path_factory.mktemp("github")) as github:
        yield github


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, github: FakeGitHub) -> Iterator[Stack]:
    if reason := Bubblewrap().why_missing():
        pytest.skip(f"no sandbox on this machine: {reason}")
    directory = tmp_path_factory.mktemp("stack")
    environment = throw_away_environment(os.environ, str(directory))
    environment |= {"AGENTS_DIRECTORY": str(PREFIX), "GIT_ALLOWED_PROTOCOLS": "http,file"}
    environment["PROGRESS_AFTER_SECONDS"] = "600"  # the first message is the answer
    stack = Stack(directory, environment)
    stack.start()
    stack.set_limit("100000")
    add_shop(stack, github)
    yield stack
    stack.stop()


@pytest.mark.parametrize("agent", AGENTS)
def test_a_mention_ends_with_a_pull_request_and_a_reply_adds_a_commit(
    stack: Stack, github: FakeGitHub, agent: str
) -> None:
    thread = stack.mention(f"in {NAME}, add a --version flag, with {agent}")
    said = stack.reply(thread, WITHIN)
    assert "I added the flag --version" in said
    assert "Changed 1 file (+1 −0)" in said
    pull = github.pull_requests[-1]
    assert pull["html_url"] in said
    assert len(commits(github, pull["head"]["ref"])) == 1
    stack.say(thread, "also document it")
    wait_until(lambda: len(stack.replies(thread)) == 3, WITHIN, "the second answer")
    assert "I documented the flag" in stack.replies(thread)[2]
    assert len(commits(github, pull["head"]["ref"])) == 2
    assert github.pull_requests[-1] is pull


@pytest.mark.parametrize("agent", AGENTS)
def test_stop_ends_a_run_of_an_agent(stack: Stack, github: FakeGitHub, agent: str) -> None:
    before = len(github.pull_requests)
    stack.answer_slowly(60)
    thread = stack.mention(f"in {NAME}, stop in the middle of {agent}, with {agent}")
    wait_until(lambda: stack.times_asked(f"in the middle of {agent}"), WITHIN, "the model's call")
    stack.say(thread, "stop")
    wait_until(lambda: len(stack.replies(thread)) == 2, WITHIN, "the answer to stop")
    assert stack.replies(thread)[1].startswith("Stopped, as <@U1> asked.")
    assert len(github.pull_requests) == before

"""The command line, environment and mounts of every agent, and the message when one is missing."""

import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from coding_tasks.agents.description import (
    MOST_PROMPT,
    CodingAgent,
    GatewayAPI,
    Turn,
    model_takes_images,
)
from coding_tasks.agents.generic import GenericCommand
from coding_tasks.agents.registry import DEFAULT, SHIPPED, registry
from coding_tasks.sandbox.command import Command

TOKEN = "phr_a-secret-token"
TURN = Turn("add --version", "a-model", "http://127.0.0.1:8010/slack_app", TOKEN, "ab" * 16)
AGENTS = [*SHIPPED, GenericCommand("other", ("/bin/cat",))]
each = pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)


def option(command: Command, name: str) -> str:
    [value] = [arg.partition("=")[2] for arg in command.argv if arg.startswith(f"--{name}=")]
    return value


@each
def test_the_token_is_in_the_environment_only(agent: CodingAgent) -> None:
    command = agent.command(TURN)
    assert TOKEN in command.environment.values()
    assert not any(TOKEN in argument for argument in command.argv)
    assert TOKEN not in repr(command)
    assert TOKEN not in repr(TURN)


@each
def test_the_prompt_is_on_standard_input(agent: CodingAgent) -> None:
    command = agent.command(Turn("--help; é \ud800", "m", "http://x/p", TOKEN, "ab" * 16))
    assert command.stdin.startswith("--help; é ?".encode())
    assert "--help; é ?" not in command.argv


@each
def test_the_calls_belong_to_the_turns_trace(agent: CodingAgent) -> None:
    command = agent.command(TURN)
    assert "ab" * 16 in " ".join([*command.argv, *command.environment.values()])


@each
def test_every_path_inside_is_shown_to_the_sandbox(agent: CodingAgent, tmp_path: Path) -> None:
    program = next(arg for arg in agent.command(TURN).argv if not arg.startswith("/opt/python"))
    mounts = agent.mounts(tmp_path)
    if program.startswith("/opt/agents"):
        assert any(program.startswith(f"{inside}/") for inside in mounts)
    assert all(inside.startswith("/opt/agents/") for inside in mounts)
    assert all(path.is_absolute() for path in mounts.values())


@each
def test_only_our_own_variables_are_in_the_environment(
    agent: CodingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "leaked")
    assert "leaked" not in agent.command(TURN).environment.values()


IMAGES = replace(TURN, images=["/input/1.png", "/input/3.jpeg"])


@pytest.mark.parametrize("session", [None, "abc-1"])
@pytest.mark.parametrize("name", ["small", "codex", "mini"])
def test_images_are_named_on_the_command_line(name: str, session: str | None) -> None:
    """An option that takes several values must not take the prompt for one."""
    command = registry()[name].command(replace(IMAGES, session=session))
    named = [arg for arg in command.argv if arg.startswith("--image")]
    assert named == ["--image=/input/1.png", "--image=/input/3.jpeg"]
    assert "--image" not in " ".join(registry()[name].command(TURN).argv)


@each
def test_every_agent_learns_where_files_for_people_go(agent: CodingAgent) -> None:
    command = agent.command(TURN)
    assert command.environment["TOLLGATE_OUTPUT"] == "/home/agent/output"
    if agent.name in ("claude", "codex", "mini"):
        assert b"/home/agent/output" in command.stdin


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("claude-sonnet-4-5", True),
        ("gpt-4o", True),
        ("gpt-4.1", True),
        ("gpt-5", True),
        ("o3", True),
        ("anything-new", True),
        ("gpt-4", False),
        ("gpt-4-0613", False),
        ("gpt-3.5-turbo", False),
        ("o3-mini", False),
        ("claude-2.1", False),
    ],
)
def test_models_without_images_are_known(model: str, takes: bool) -> None:
    assert model_takes_images(model) is takes


@pytest.mark.parametrize("name", ["small", "claude", "codex"])
def test_a_session_is_continued(name: str) -> None:
    agent = registry()[name]
    assert agent.resumes
    again = Turn(TURN.prompt, TURN.model, TURN.base_url, TOKEN, TURN.trace_id, session="abc-1")
    new, continued = agent.command(TURN), agent.command(again)
    assert "abc-1" not in " ".join(new.argv)
    assert "abc-1" in " ".join(continued.argv)
    assert agent.session_directories


@pytest.mark.parametrize("session", ["--config=x", "a b", "", "../x", "x" * 200])
def test_a_session_cannot_be_an_option(session: str) -> None:
    with pytest.raises(ValueError, match="session"):
        Turn("x", "m", "http://x/p", TOKEN, "ab" * 16, session=session)


@pytest.mark.parametrize("prompt", ["", " \n", "é" * (MOST_PROMPT // 2 + 1)])
def test_an_empty_or_endless_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="prompt"):
        Turn(prompt, "m", "http://x/p", TOKEN, "ab" * 16)


def test_claude_code_reads_no_settings_of_the_repository() -> None:
    command = registry()["claude"].command(TURN)
    assert option(command, "setting-sources") == "user"
    assert "--strict-mcp-config" in command.argv
    assert command.environment["ANTHROPIC_BASE_URL"] == TURN.base_url
    assert registry()["claude"].api is GatewayAPI.MESSAGES


def test_codex_gets_its_provider_by_options() -> None:
    command = registry()["codex"].command(TURN)
    options = [arg.removeprefix("--config=") for arg in command.argv if "--config=" in arg]
    given = tomllib.loads("\n".join(options))
    assert given["model_provider"] == "tollgate"
    provider = given["model_providers"]["tollgate"]
    assert provider["base_url"] == "http://127.0.0.1:8010/slack_app/v1"
    assert command.environment[provider["env_key"]] == TOKEN
    assert given["web_search"] == "disabled"


def test_the_small_agent_gets_its_budget() -> None:
    command = registry()["small"].command(TURN)
    assert option(command, "steps") == str(TURN.budget.steps)
    assert option(command, "seconds") == str(TURN.budget.seconds)
    assert command.argv[1] == "-I", "a repository's modules could replace the standard library's"


def test_a_command_of_the_settings_gets_the_prompt_where_it_wants() -> None:
    agent = registry({"aider": ["aider", "--message", "{prompt}", "--model={model}"]})["aider"]
    command = agent.command(Turn("use {model}", "m1", "http://x/p", TOKEN, "ab" * 16))
    assert command.argv == ("aider", "--message", "use {model}", "--model=m1")
    assert command.stdin == b""
    assert command.environment["OPENAI_BASE_URL"] == "http://x/p/v1"
    assert not agent.resumes


@pytest.mark.parametrize(
    "commands",
    [
        {"codex": ["x"]},
        {"With Space": ["x"]},
        {"empty": []},
        {"number": ["x", 1]},
        {"x": ["a"]},
    ],
)
def test_a_wrong_command_of_the_settings_is_refused(commands: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="agent"):
        registry(commands)


def test_the_default_agent_is_always_there(tmp_path: Path) -> None:
    assert registry()[DEFAULT].why_missing(tmp_path) is None


@pytest.mark.parametrize("name", ["claude", "codex", "mini"])
def test_an_agent_that_is_missing_says_how_to_install_it(name: str, tmp_path: Path) -> None:
    agent = registry()[name]
    reason = agent.why_missing(tmp_path)
    assert reason == (
        f"{agent.title} is not installed here. "
        f"An operator can install it: make agents AGENTS={name}"
    )


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    agents = registry(
        {"absent": ["/no/such/program"], "own": ["/opt/agents/own/bin/x"], "there": ["sh"]}
    )
    assert "/no/such/program" in (agents["absent"].why_missing(tmp_path) or "")
    assert agents["there"].why_missing(tmp_path) is None
    assert agents["own"].why_missing(tmp_path) is not None
    (tmp_path / "own" / "bin").mkdir(parents=True)
    (tmp_path / "own" / "bin" / "x").touch()
    assert agents["own"].why_missing(tmp_path) is None
    assert agents["own"].mounts(tmp_path) == {"/opt/agents/own": tmp_path / "own"}
    assert agents["there"].mounts(tmp_path) == {}


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_a_link_that_leads_nowhere_is_missing(name: str, tmp_path: Path) -> None:
    (tmp_path / name / "bin").mkdir(parents=True)
    (tmp_path / name / "bin" / name).symlink_to("../gone")
    assert registry()[name].why_missing(tmp_path) is not None
    (tmp_path / name / "gone").symlink_to(sys.executable)
    assert registry()[name].why_missing(tmp_path) is None

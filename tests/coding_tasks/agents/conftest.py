"""A repository, a scripted provider, and the small agent as a real process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coding_tasks.agents.inside import small_agent
from devstack.demo_model.script import Reply, ToolCall
from tests.fakes import FakeModel

PROGRAM = Path(small_agent.__file__)
TOKEN = "phr_a-token-of-one-run"


@dataclass(frozen=True)
class Ran:
    """How a turn of the small agent ended, and what it reported."""

    status: int
    events: list[dict[str, Any]]
    errors: str

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        [event] = self.of(kind)
        return event

    @property
    def result(self) -> str:
        return str(self.one("result")["text"])


@dataclass(frozen=True)
class Agent:
    """The small agent in a tree and with a home, in front of a provider."""

    tree: Path
    home: Path
    model: FakeModel

    def run(
        self,
        prompt: str = "please",
        url: str = "",
        variables: Mapping[str, str] | None = None,
        images: Sequence[Path] = (),
        **options: object,
    ) -> Ran:
        """Do one turn; return how it ended."""
        variables = {"TOLLGATE_TOKEN": TOKEN, **(variables or {})}
        given = {"base-url": url or self.model.url, "model": "claude-sonnet-4-5", **options}
        ran = subprocess.run(
            [sys.executable, "-I", str(PROGRAM)]
            + [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
            + [f"--image={path}" for path in images],
            input=prompt.encode(),
            cwd=self.tree,
            env={"HOME": str(self.home), "PATH": os.environ["PATH"], **variables},
            capture_output=True,
            timeout=120,
            check=False,
        )
        events = [json.loads(line) for line in ran.stdout.splitlines()]
        return Ran(ran.returncode, events, ran.stderr.decode())

    def use(self, tool: str, **arguments: object) -> Ran:
        """Do one turn in which the model uses one tool and then answers."""
        self.model.script(call(tool, **arguments), "done")
        return self.run()

    def bodies(self) -> list[dict[str, Any]]:
        """Return the requests that the provider got, oldest first."""
        return [request.body for request in self.model.requests("/v1/messages")]


def call(tool: str, /, **arguments: object) -> Reply:
    """Return an answer of the model that calls a tool."""
    return Reply(tools=(ToolCall(tool, dict(arguments)),))


@pytest.fixture(scope="module")
def _provider() -> Iterator[FakeModel]:
    with FakeModel() as fake:
        yield fake


@pytest.fixture
def model(_provider: FakeModel) -> FakeModel:
    _provider.reset()
    return _provider


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "shop").mkdir(parents=True)
    (root / "README.md").write_text("# Web shop\n")
    (root / "shop" / "basket.py").write_text("def total(prices):\n    return sum(prices)\n")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]\n")
    return root


@pytest.fixture
def agent(tree: Path, tmp_path: Path, model: FakeModel) -> Agent:
    home = tmp_path / "home"
    home.mkdir()
    return Agent(tree, home, model)


@pytest.fixture
def recorded() -> Callable[[str], list[bytes]]:
    """Return a function that reads the lines that a real agent wrote."""
    folder = Path(__file__).parent / "recordings"
    return lambda name: (folder / name).read_bytes().splitlines()

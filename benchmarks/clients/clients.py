"""The measured clients: where each is installed, and how it gets the gateway's address.

`benchmarks/clients/README.md` says how to install them.
"""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DRIVERS = Path(__file__).parent / "drivers"
QUESTION = "Say hi."


@dataclass(frozen=True)
class Start:
    """How a client is started: in which folder, with which arguments and environment."""

    argv: list[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Client:
    """A client with its defaults. Its version is that of `package`."""

    name: str
    api: str
    package: str
    environment: str
    start: Callable[[Path, Path, str], Start]
    """Called with the folder of clients, an empty home and the address of the gateway."""

    def version(self, tools: Path) -> str | None:
        """Return the installed version, or None if the client is missing."""
        if self.environment == "node":
            manifest = tools / "node" / "node_modules" / self.package / "package.json"
            return json.loads(manifest.read_text())["version"] if manifest.exists() else None
        python = _python(tools, self.environment)
        if not python.exists():
            return None
        ask = f"import importlib.metadata as m; print(m.version({self.package!r}))"
        asked = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
        return asked.stdout.strip() or None


def _python(tools: Path, environment: str) -> Path:
    return tools / f"venv-{environment}" / "bin" / "python"


def python_sdk(driver: str, environment: str, api: str) -> Callable[[Path, Path, str], Start]:
    """Return the start of a Python library, driven by a program of `drivers/`."""

    def start(tools: Path, home: Path, url: str) -> Start:
        argv = [str(_python(tools, environment)), str(DRIVERS / driver), url, api]
        return Start(argv, home, {"LITELLM_LOCAL_MODEL_COST_MAP": "True"})

    return start


def node_sdk(driver: str, api: str) -> Callable[[Path, Path, str], Start]:
    """Return the start of a library for Node, which finds its packages from the folder it is in."""

    def start(tools: Path, _home: Path, url: str) -> Start:
        program = (DRIVERS / driver).read_text()
        argv = ["node", "--input-type=module", "--eval", program, "--", url, api]
        return Start(argv, tools / "node")

    return start


def claude_code(tools: Path, home: Path, url: str) -> Start:
    """Return the start of Claude Code."""
    return Start(
        [_bin(tools, "claude"), "-p", QUESTION],
        home,
        {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_AUTH_TOKEN": "token",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        },
    )


def codex(tools: Path, home: Path, url: str) -> Start:
    """Return the start of the Codex CLI."""
    return Start(
        [_bin(tools, "codex"), "exec", "--skip-git-repo-check", "-m", "gpt-5.1-codex",
         "-c", f'openai_base_url="{url}/v1"', "-c", 'web_search="disabled"',
         "-c", "check_for_update_on_startup=false", "-c", "analytics.enabled=false", QUESTION],
        home,
        {"CODEX_API_KEY": "token"},
    )  # fmt: skip


def codex_with_a_provider(tools: Path, home: Path, url: str) -> Start:
    """Return the start of the Codex CLI, with the gateway as a provider of its own name."""
    provider = f'{{name="Tollgate",base_url="{url}/v1",env_key="TOKEN",wire_api="responses"}}'
    return Start(
        [_bin(tools, "codex"), "exec", "--skip-git-repo-check", "-m", "gpt-5.1-codex",
         "-c", "model_provider=tollgate", "-c", f"model_providers.tollgate={provider}",
         "-c", "check_for_update_on_startup=false", "-c", "analytics.enabled=false", QUESTION],
        home,
        {"TOKEN": "token"},
    )  # fmt: skip


def opencode(model: str, options: dict[str, str]) -> Callable[[Path, Path, str], Start]:
    """Return the start of opencode with the provider of a model."""

    def start(tools: Path, home: Path, url: str) -> Start:
        provider = model.partition("/")[0]
        settings = {"baseURL": f"{url}/v1", "apiKey": "token"}
        entry = {"options": settings, **options}
        if options:
            entry["models"] = {model.partition("/")[2]: {}}
        config = {"provider": {provider: entry}, "autoupdate": False, "share": "disabled"}
        (home / "opencode.json").write_text(json.dumps(config))
        return Start(
            [_bin(tools, "opencode"), "run", "-m", model, QUESTION],
            home,
            {"OPENCODE_DISABLE_AUTOUPDATE": "1", "XDG_DATA_HOME": str(home / "data")},
        )

    return start


def aider(model: str, base: str, key: str) -> Callable[[Path, Path, str], Start]:
    """Return the start of aider with a model, and the variables of its provider."""

    def start(tools: Path, home: Path, url: str) -> Start:
        at = url if base.startswith("ANTHROPIC") else f"{url}/v1"
        return Start(
            [str(_python(tools, "aider")), "-m", "aider", "--model", model, "--message", QUESTION,
             "--yes-always", "--no-git", "--no-check-update", "--analytics-disable",
             "--no-show-model-warnings", "--no-show-release-notes", "--no-detect-urls"],
            home,
            {base: at, key: "token", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )  # fmt: skip

    return start


def mini(model: str, more: dict[str, str]) -> Callable[[Path, Path, str], Start]:
    """Return the start of mini-swe-agent with a model, and further variables."""

    def start(tools: Path, home: Path, url: str) -> Start:
        return Start(
            [str(_python(tools, "mini")), "-m", "minisweagent.run.mini", "-m", model,
             "-t", QUESTION, "-y", "--exit-immediately", "-l", "0"],
            home,
            {
                "OPENAI_API_BASE": f"{url}/v1",
                "OPENAI_API_KEY": "token",
                "ANTHROPIC_API_BASE": url,
                "ANTHROPIC_API_KEY": "token",
                "MSWEA_CONFIGURED": "true",
                "MSWEA_COST_TRACKING": "ignore_errors",
                "MSWEA_GLOBAL_CONFIG_DIR": str(home),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                **more,
            },
        )  # fmt: skip

    return start


def _bin(tools: Path, program: str) -> str:
    return str(tools / "node" / "node_modules" / ".bin" / program)


_ONCE = {"MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "1"}
_COMPATIBLE = {"npm": "@ai-sdk/openai-compatible", "name": "Tollgate"}
CLAUDE, GPT = "anthropic/claude-sonnet-4-5", "openai/gpt-4o"


def _libraries() -> list[Client]:
    found = [
        Client("anthropic (Python)", "messages", "anthropic", "sdks",
               python_sdk("anthropic_sdk.py", "sdks", "messages")),
        Client("anthropic (Node)", "messages", "@anthropic-ai/sdk", "node",
               node_sdk("anthropic_sdk.mjs", "messages")),
    ]  # fmt: skip
    for api in ("chat", "responses"):
        found += [
            Client("openai (Python)", api, "openai", "sdks",
                   python_sdk("openai_sdk.py", "sdks", api)),
            Client("openai (Node)", api, "openai", "node", node_sdk("openai_sdk.mjs", api)),
        ]  # fmt: skip
    for api in ("messages", "chat", "responses"):
        package = "@ai-sdk/anthropic" if api == "messages" else "@ai-sdk/openai"
        found += [
            Client("AI SDK", api, package, "node", node_sdk("ai_sdk.mjs", api)),
            Client("litellm", api, "litellm", "litellm",
                   python_sdk("litellm_sdk.py", "litellm", api)),
        ]  # fmt: skip
    for api in ("messages", "chat"):
        found += [
            Client("dspy", api, "dspy", "dspy", python_sdk("dspy_sdk.py", "dspy", api)),
            Client("llama-index", api,
                   f"llama-index-llms-{'anthropic' if api == 'messages' else 'openai'}",
                   "llama-index", python_sdk("llama_index_sdk.py", "llama-index", api)),
        ]  # fmt: skip
    return found


CLIENTS = [
    *_libraries(),
    Client("Claude Code", "messages", "@anthropic-ai/claude-code", "node", claude_code),
    Client("Codex CLI", "responses", "@openai/codex", "node", codex),
    Client("Codex CLI, own provider", "responses", "@openai/codex", "node", codex_with_a_provider),
    Client("opencode", "messages", "opencode-ai", "node", opencode(CLAUDE, {})),
    Client("opencode", "responses", "opencode-ai", "node", opencode(GPT, {})),
    Client("opencode", "chat", "opencode-ai", "node", opencode("tollgate/gpt-4o", _COMPATIBLE)),
    Client("aider", "messages", "aider-chat", "aider",
           aider(CLAUDE, "ANTHROPIC_API_BASE", "ANTHROPIC_API_KEY")),
    Client("aider", "chat", "aider-chat", "aider",
           aider(GPT, "OPENAI_API_BASE", "OPENAI_API_KEY")),
    Client("mini-swe-agent", "messages", "mini-swe-agent", "mini", mini(CLAUDE, {})),
    Client("mini-swe-agent", "chat", "mini-swe-agent", "mini", mini(GPT, {})),
    Client("mini-swe-agent, one attempt", "chat", "mini-swe-agent", "mini", mini(GPT, _ONCE)),
]  # fmt: skip

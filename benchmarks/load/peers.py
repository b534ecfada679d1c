"""Other gateways, on the gateway's core, between the same generator and the same upstream.

They are installed into `.devstack/bench/` on request only, and run without the caller's
environment.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load import processes
from benchmarks.load.generator import Load, small_body
from benchmarks.load.upstream import MODEL
from benchmarks.load.world import ROOT, World
from devstack.servers import answers, free_port

HERE = Path(__file__).resolve().parent
INSTALLED = Path(os.environ.get("DEVSTACK_DIR", ROOT / ".devstack")) / "bench"
PYTHON = INSTALLED / "python" / "bin" / "python"
PORTKEY = INSTALLED / "portkey"
# The newest @hono/node-server does not stream with it.
_PORTKEY_PACKAGE = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": "1.15.2"},
    "overrides": {"@hono/node-server": "1.13.8"},
}


def _at_its_port(_: Path, port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _as_it_says(log: Path, _: int) -> str:
    """Return the address from the log of a server that chooses its own port."""
    found = re.findall(r"^(http://127\.0\.0\.1:\d+)", log.read_text(), re.MULTILINE)
    return str(found[-1]) if found else "http://127.0.0.1:1"


@dataclass
class Peer:
    """A way to run one other gateway. `prepare` returns its command line and environment."""

    name: str
    prepare: Callable[[World, int], tuple[list[str], dict[str, str]]]
    ready: str = "/"
    where: Callable[[Path, int], str] = _at_its_port
    path: str = "/v1/messages"
    body: bytes = field(default_factory=small_body)
    headers: Callable[[World], dict[str, str]] = lambda _: {}
    token: str = "none"

    @property
    def installed(self) -> bool:
        """Whether its packages are installed."""
        return PORTKEY.exists() if self.name == "Portkey" else PYTHON.exists()


def install() -> list[str]:
    """Install missing peers; return a sentence for each one that could not be installed."""
    problems = []
    INSTALLED.mkdir(parents=True, exist_ok=True)
    if not PYTHON.exists():
        requirements = str(HERE.parent / "requirements-peers.txt")
        problems += install_into(
            PYTHON.parent.parent,
            [sys.executable, "-m", "venv", str(PYTHON.parent.parent)],
            [str(PYTHON), "-m", "pip", "install", "-q", "-r", requirements],
        )
    if not PORTKEY.exists():
        PORTKEY.mkdir()
        (PORTKEY / "package.json").write_text(json.dumps(_PORTKEY_PACKAGE))
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        problems += install_into(PORTKEY, [*npm, "--prefix", str(PORTKEY)])
    return problems


def install_into(directory: Path, *commands: list[str]) -> list[str]:
    """Run commands that fill a directory. If one fails, remove the directory and return why."""
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(directory, ignore_errors=True)
            said = getattr(error, "stderr", None) or str(error).encode()
            return [f"{directory.name}: {said.decode(errors='replace').strip()[-200:]}"]
    return []


@asynccontextmanager
async def running(peer: Peer, world: World) -> AsyncIterator[tuple[int, Load]]:
    """Run a peer; yield its process id and its load. Raises `RuntimeError` if it does not run."""
    port = free_port()
    argv, environment = peer.prepare(world, port)
    log = world.directory / f"{peer.name.replace(' ', '-')}.log"
    process = processes.start(
        argv,
        log,
        cores={processes.GATEWAY_CORE},
        environment={"HOME": str(world.directory), **environment},
    )
    try:
        await asyncio.to_thread(
            processes.wait_ready, process, lambda: answers(peer.where(log, port) + peer.ready), log
        )
        url = peer.where(log, port)
        yield process.pid, Load(url, peer.body, peer.path, (peer.token,), peer.headers(world))
    finally:
        await asyncio.to_thread(processes.stop, process)


def _passthrough(client: str) -> Callable[[World, int], tuple[list[str], dict[str, str]]]:
    def prepare(world: World, port: int) -> tuple[list[str], dict[str, str]]:
        script = str(HERE / "passthrough.py")
        return [str(PYTHON), script, client, str(port), world.upstream.url, world.redis_url], {}

    return prepare


def _litellm(world: World, port: int) -> tuple[list[str], dict[str, str]]:
    config = world.directory / "litellm.yaml"
    model = {"model": f"anthropic/{MODEL}", "api_base": world.upstream.url, "api_key": "sk-x"}
    document = {
        "model_list": [{"model_name": MODEL, "litellm_params": model}],
        "general_settings": {"master_key": "sk-bench"},
    }
    config.write_text(json.dumps(document))  # JSON is YAML
    argv = [str(PYTHON.parent / "litellm"), "--config", str(config), "--num_workers", "1"]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    return [*argv, "--host", "127.0.0.1", "--port", str(port)], environment


def _portkey(_: World, port: int) -> tuple[list[str], dict[str, str]]:
    server = PORTKEY / "node_modules/@portkey-ai/gateway/build/start-server.js"
    return ["node", str(server), f"--port={port}", "--headless"], {"NODE_ENV": "production"}


def _to_upstream(world: World) -> dict[str, str]:
    return {
        "x-portkey-provider": "anthropic",
        "x-portkey-custom-host": f"{world.upstream.url}/v1",
    }


def _tensorzero(world: World, _: int) -> tuple[list[str], dict[str, str]]:
    config = world.directory / "tensorzero.toml"
    config.write_text(
        "[gateway]\nobservability.enabled = false\n"
        "disable_pseudonymous_usage_analytics = true\n"
        '[models.bench]\nrouting = ["fake"]\n[models.bench.providers.fake]\ntype = "anthropic"\n'
        f'model_name = "{MODEL}"\napi_base = "{world.upstream.url}/v1"\n'
        'api_key_location = "env::ANTHROPIC_API_KEY"\n'
    )
    start = (
        "import sys, threading, tensorzero.tensorzero as t\n"
        "g = t._start_http_gateway(config_file=sys.argv[1], clickhouse_url=None, "
        "postgres_url=None, valkey_url=None, async_setup=False)\n"
        "print(g.base_url, flush=True)\nthreading.Event().wait()\n"
    )
    return [str(PYTHON), "-c", start, str(config)], {"ANTHROPIC_API_KEY": "sk-x"}


def _chat_body() -> bytes:
    question = json.loads(small_body())
    messages = [{"role": "system", "content": question["system"]}, *question["messages"]]
    document = {"model": "tensorzero::model_name::bench", "max_tokens": 100, "messages": messages}
    return json.dumps(document).encode()


AIOHTTP = Peer("aiohttp, bare", _passthrough("aiohttp"))
LITELLM = Peer("LiteLLM proxy", _litellm, "/health/liveliness", token="sk-bench")
PORTKEY_GATEWAY = Peer("Portkey", _portkey, headers=_to_upstream)
TENSORZERO = Peer(
    "TensorZero",
    _tensorzero,
    "/health",
    _as_it_says,
    path="/openai/v1/chat/completions",
    body=_chat_body(),
)
PEERS = (
    TENSORZERO,
    PORTKEY_GATEWAY,
    LITELLM,
    AIOHTTP,
    Peer("pyreqwest, bare", _passthrough("pyreqwest")),
    Peer("httpx, bare", _passthrough("httpx")),
)

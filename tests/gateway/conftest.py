"""A gateway and everything around it: its own Redis, a fake Django and a fake provider."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from devstack.servers import Program, answers, free_port, redis_server
from gateway.network import redis_connection
from tests import settings as suite
from tests.conftest import running, wait_until
from tests.gateway.fake_provider import FakeProvider, default_script
from tests.gateway.fake_tollgate import SERVICE_TOKEN, FakeProject, FakeTollgate
from tests.gateway.threads import test_ended

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = "claude-sonnet-4-5"
DENIED = 429  # the status of a denial, unless the operator or caller chooses another
METRICS_TOKEN = "metrics-token-of-the-gateway-tests"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let the test hold back answers."""
    test_ended.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """Send the answers that the test still holds back, before its fixtures wait for them."""
    test_ended.set()


@dataclass
class World:
    """One gateway, everything it talks to, and a client for it."""

    url: str
    http: httpx.Client
    tollgate: FakeTollgate
    provider: FakeProvider
    redis: redis.Redis
    log: Path
    process: "Process"
    store: "Process"

    @property
    def port(self) -> int:
        """Return the port that the gateway listens on."""
        return int(self.url.rpartition(":")[2])

    @contextmanager
    def at(self, url: str) -> Iterator["World"]:
        """Return the same world with another gateway."""
        with httpx.Client(base_url=url, trust_env=False, timeout=30, verify=False) as http:
            yield replace(self, url=url, http=http)

    def post(
        self,
        token: str | None,
        path: str = "/slack_app/v1/messages",
        body: dict[str, Any] | bytes | None = None,
        **options: Any,
    ) -> httpx.Response:
        """Call the gateway as a plain HTTP client would."""
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers.setdefault("authorization", f"Bearer {token}")
        content = body if isinstance(body, bytes) else None
        document = None if isinstance(body, bytes) else (body or messages_body())
        return self.http.post(path, headers=headers, content=content, json=document, **options)

    def post_at_once(
        self, token: str, count: int, path: str = "/slack_app/v1/messages"
    ) -> list[int]:
        """Send this many calls at the same moment; return their statuses."""
        body = json.dumps(messages_body()).encode()
        request = (
            f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        ).encode() + body

        async def send(connection: tuple[Any, Any]) -> int:
            reader, writer = connection
            writer.write(request)
            answer = await reader.read()
            writer.close()
            return int(answer.split(b" ", 2)[1])

        async def send_all() -> list[int]:
            connections = [
                await asyncio.open_connection("127.0.0.1", self.port) for _ in range(count)
            ]
            return await asyncio.gather(*map(send, connections))

        return asyncio.run(send_all())

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        """Send a GET request to the gateway."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return self.http.get(path, headers=headers)

    def booked(self, project: FakeProject, count: int = 1) -> list[dict[str, Any]]:
        """Wait until this many events of a project are booked; return them."""
        wait_until(
            lambda: len(self.tollgate.events_of(project)) >= count,
            what=f"{count} events of project {project.id}",
        )
        events = self.tollgate.events_of(project)
        assert len(events) == count
        return events

    def account(self, project: FakeProject, resource: str = "ai_credits") -> dict[str, int]:
        """Return the spent, held and pending micro-credits in the gateway's Redis."""
        key = f"tollgate:account:{project.organization_id}:{resource}"
        values = self.redis.hmget(key, "spent", "held", "pending")
        return {
            name: int(value or 0)
            for name, value in zip(("spent", "held", "pending"), values, strict=True)
        }

    def settled(self, project: FakeProject) -> dict[str, int]:
        """Wait until nothing is pending; return the account."""
        wait_until(lambda: self.account(project)["pending"] == 0, what="all acknowledgements")
        return self.account(project)

    def reports(self, project: FakeProject) -> list[int]:
        """Return the insufficient remainders that the gateway reported for a project's account."""
        return [
            report["remaining_micro"]
            for report in self.tollgate.insufficient
            if report["organization_id"] == project.organization_id
        ]

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        text = self.get("/metrics", METRICS_TOKEN).text
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith((f"{name} ", f"{name}{{"))
        )


class Process:
    """The process of the gateway or of its Redis. It can be killed and restarted."""

    def __init__(
        self,
        program: Program,
        log: Path,
        run: Callable[[Program, Path], AbstractContextManager[subprocess.Popen]],
    ) -> None:
        self._program = program
        self._log = log
        self._run = run
        self._running = ExitStack()
        self.popen: subprocess.Popen

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.popen = self._running.enter_context(self._run(self._program, self._log))

    def stop(self) -> None:
        """Stop it gracefully."""
        self._running.close()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.popen.kill()
        self.popen.wait()
        self._running.close()


def messages_body(**fields: Any) -> dict[str, Any]:
    """Return a request of the Messages API."""
    return {
        "model": MODEL,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}],
        **fields,
    }


def gateway_program(
    port: int, redis_url: str, tollgate_url: str, provider_url: str, **environment: str
) -> Program:
    """Return the program that runs `python -m gateway`."""
    variables = {
        "GATEWAY_PORT": str(port),
        "GATEWAY_REDIS_URL": redis_url,
        "TOLLGATE_URL": tollgate_url,
        "GATEWAY_SERVICE_TOKEN": SERVICE_TOKEN,
        "ANTHROPIC_UPSTREAM_URL": provider_url,
        "OPENAI_UPSTREAM_URL": f"{provider_url}/v1",
        "ANTHROPIC_API_KEY": "sk-ant-key-of-the-operator",
        "OPENAI_API_KEY": "sk-key-of-the-operator",
        "BILLING_URL": "https://billing.example.com/credits",
        "BOT_NAME": "Tollgate",
        "METRICS_TOKEN": METRICS_TOKEN,
        "PYTHONUNBUFFERED": "1",
        **environment,
    }
    return Program(
        "gateway",
        [sys.executable, "-m", "gateway"],
        lambda: answers(f"http://127.0.0.1:{port}/_ready"),
        environment=variables,
        port=port,
    )


@contextmanager
def serving(program: Program, log: Path) -> Iterator[subprocess.Popen]:
    """Run a program with only its own environment variables until the block ends."""
    variables = [f"{name}={value}" for name, value in program.environment.items()]
    variables += [f"PATH={os.environ['PATH']}", f"PYTHONPATH={ROOT}"]
    argv = ["/usr/bin/env", "-i", *variables, *program.argv]
    with running(Program(program.name, argv, program.ready), log) as process:
        yield process


def new_directory(name: str) -> Path:
    """Return an empty directory. A package's servers may start twice, and must know nothing."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=suite.DIRECTORY))


@contextmanager
def world_of(**environment: str) -> Iterator[World]:
    """Start a gateway with its own empty Redis, fake Django and fake provider."""
    directory = new_directory("gateway")
    with ExitStack() as stack:
        tollgate = stack.enter_context(FakeTollgate())
        provider = stack.enter_context(FakeProvider())
        redis_port, port = free_port(), free_port()
        server = redis_server("redis", directory / "redis", redis_port)
        store = Process(server, directory / "redis.log", running)
        store.start()
        stack.callback(store.stop)
        redis_url = f"redis://127.0.0.1:{redis_port}/0"
        client = stack.enter_context(redis.Redis.from_url(redis_url, decode_responses=True))
        program = gateway_program(port, redis_url, tollgate.url, provider.url, **environment)
        log = directory / "gateway.log"
        process = Process(program, log, serving)
        process.start()
        stack.callback(process.stop)
        url = f"http://127.0.0.1:{port}"
        http = stack.enter_context(
            httpx.Client(base_url=url, trust_env=False, timeout=30, verify=False)
        )
        yield World(url, http, tollgate, provider, client, log, process, store)


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    """Return threads for calls that wait."""
    with ThreadPoolExecutor(max_workers=32) as pool:
        yield pool


@pytest.fixture(scope="package")
def own_redis() -> Iterator[str]:
    """Return the address of a Redis that no gateway process uses."""
    directory, port = new_directory("gateway-stores"), free_port()
    with running(redis_server("redis", directory, port), directory / "redis.log"):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the timeouts for Redis, for busy machines."""
    monkeypatch.setattr(redis_connection, "CONNECT_TIMEOUT", 30.0)
    monkeypatch.setattr(redis_connection, "ANSWER_TIMEOUT", 30.0)


@pytest.fixture(scope="package")
def _world() -> Iterator[World]:
    with world_of() as world:
        yield world


@pytest.fixture(scope="package")
def _fragile_world() -> Iterator[World]:
    with world_of(GATEWAY_LEASE="3") as world:
        yield world


@pytest.fixture
def fragile(_fragile_world: World) -> Iterator[World]:
    """A gateway for tests that break something. Everything is repaired before the next test."""
    yield _fragile_world
    _fragile_world.provider.script = default_script
    _fragile_world.tollgate.mend()
    _fragile_world.tollgate.forget_booking_answers = False
    wait_until(
        lambda: _fragile_world.get("/_ready").status_code == 200, what="the gateway being ready"
    )
    # After an outage the feed is polled less often, so wait until it is up to date.
    seconds, micros = _fragile_world.redis.time()
    mended_ms = seconds * 1000 + micros // 1000
    wait_until(
        lambda: int(_fragile_world.redis.hget("tollgate:feed", "confirmed_at") or 0) > mended_ms,
        what="the change feed to be polled again",
    )
    wait_until(lambda: works(_fragile_world), what="calls being admitted")


def works(world: World) -> bool:
    """Return whether an ordinary call with a new token is admitted."""
    return world.post(world.tollgate.token(world.tollgate.project())).status_code == 200


@pytest.fixture
def world(_world: World) -> Iterator[World]:
    """One gateway for all tests that break nothing. Each test has its own projects and tokens."""
    _world.provider.script = default_script
    _world.tollgate.mend()
    yield _world
    _world.provider.script = default_script
    _world.tollgate.mend()

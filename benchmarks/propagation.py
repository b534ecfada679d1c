"""How soon every gate refuses, and admits again: `python -m benchmarks.propagation [ROUNDS]`.

The processes are real: two web workers with the webhook and the endpoint, two gateway processes,
Temporal, Redis and the reconciler, on the embedded default and on PostgreSQL. README.billing.md has
the method and the figures.
"""

import hashlib
import hmac
import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.load import processes
from benchmarks.load.table import Table
from devstack import commands
from devstack.isolation import throw_away_environment
from devstack.programs import metrics_directory, server_programs, tollgate_programs
from devstack.servers import free_port
from devstack.settings import Stack, read
from tests.postgres import postgres_server

ROUNDS = 100
FLUSHES = 5
MOST_TO_REFUSE = 1.0
MOST_TO_ADMIT = 2.0
MOST_TO_HEAL = 5.0
WATCHED = 1.5
"""Seconds to go on asking the gates after the time by which they must have seen a change."""

CLIENTS = {"endpoint": 2, "webhook": 1, "gateway": 2}
PAUSE = 0.01
PATIENCE = 20.0
UNTHROTTLED = 1_000_000
"""Requests per minute: one token makes all calls, and the throttle is not what is measured."""
CREDITS = 6_000
"""A round tops up and uses up exactly this many. The rest would count in the next round."""
MICRO = 1_000_000
SET = "@posthog/quota-limits/ai_credits"
MARKER = "tollgate:quota:marker"
DATABASES = ("embedded default", "PostgreSQL")
SKIPPED = {"demo-slack", "worker", "celery", "beat"}


def main(rounds: int) -> int:
    """Print the table; return 1 if a figure was missed."""
    table = Table()
    for name in DATABASES:
        with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as scratch:
            Path(scratch).chmod(0o755)  # PostgreSQL's own user passes through
            with serving(Path(scratch), on_postgresql=name == "PostgreSQL") as environment:
                show(table, name, measure_in_subprocess(environment, rounds))
    table.show()
    return 1 if table.missed else 0


@contextmanager
def serving(scratch: Path, *, on_postgresql: bool) -> Iterator[dict[str, str]]:
    """Run the stack without the programs that only answer mentions; yield its environment."""
    environment = throw_away_environment(os.environ, str(scratch / "stack"))
    environment |= {"WEB_PROCESSES": "2", "GATEWAY_PROCESSES": "2"}
    environment["GATEWAY_REQUESTS_PER_MINUTE"] = str(UNTHROTTLED)
    anywhere = os.sched_getaffinity(0)
    with ExitStack() as running:
        if on_postgresql:
            server = postgres_server(scratch / "postgres", free_port())
            environment["DATABASE_URL"] = running.enter_context(server)
        stack = read(environment)
        stack.directory.mkdir()
        metrics_directory(stack).mkdir()
        environment = environment | stack.environment
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        subprocess.run(commands.MIGRATE, env=environment, check=True, capture_output=True)
        for program in _programs(stack):
            running.enter_context(
                processes.running(
                    program.argv,
                    scratch / f"{program.name}.log",
                    program.ready,
                    cores=anywhere,
                    environment=environment | program.environment,
                )
            )
        yield environment


def _programs(stack: Stack) -> list[Any]:
    programs = [*server_programs(stack), *tollgate_programs(stack)]
    return [program for program in programs if program.name not in SKIPPED]


def measure_in_subprocess(environment: dict[str, str], rounds: int) -> dict[str, Any]:
    """Measure in a process that uses the stack's database and Redis, like an operator's command."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.propagation", "measure", str(rounds)],
        env=environment | {"DJANGO_SETTINGS_MODULE": "config.settings"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def show(table: Table, name: str, seen: dict[str, Any]) -> None:
    """Add the rows of one database. With fewer than a hundred rounds, the p99 is the slowest."""
    load = f"load {os.getloadavg()[0]:.1f}, {seen['asked']:,} questions"
    for what, most, times in (
        ("crossing event accepted → refused by", MOST_TO_REFUSE, seen["refused"]),
        ("top-up committed → accepted by", MOST_TO_ADMIT, seen["admitted"]),
    ):
        for gate, found in times.items():
            ordered = sorted(found)
            p99 = ordered[-1 - len(ordered) // 100]
            table.add(
                f"{name}: {what} {gate}, p50 / p99",
                f"{ordered[len(ordered) // 2] * 1e3:.0f} / {p99 * 1e3:.0f} ms",
                f"p99 ≤ {most:g} s",
                p99 <= most,
                load,
            )
    slowest = max(seen["healed"])
    table.add(
        f"{name}: FLUSHALL under load → healed, the slowest of {len(seen['healed'])}",
        f"{slowest:.1f} s",
        f"≤ {MOST_TO_HEAL:g} s",
        slowest <= MOST_TO_HEAL,
        load,
    )
    for gate, count in seen["let_through"].items():
        table.add(
            f"{name}: over-quota requests let through by the {gate} meanwhile",
            f"{count} of {seen['meanwhile'][gate]:,}",
            "0",
            count == 0,
            load,
            exactness=True,
        )


# --- In the measuring process --------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """One question to a gate: when it was asked, and whether it was admitted."""

    began: float
    admitted: bool


@dataclass
class Gates:
    """Asks every gate again and again, in several threads, until `stop` is set."""

    ask: dict[str, Callable[[], bool]]
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    failures: list[BaseException] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Ask until the block ends. Raise the first error of a thread."""
        self.answers = {gate: [] for gate in self.ask}
        threads = [
            threading.Thread(target=self._keep_asking, args=(gate,))
            for gate, count in CLIENTS.items()
            if gate in self.ask
            for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
        if self.failures:
            raise self.failures[0]

    def _keep_asking(self, gate: str) -> None:
        from django.db import connection

        try:
            while not self.stop.is_set():
                began = time.monotonic()
                self.answers[gate].append(Answer(began, self.ask[gate]()))
                self.stop.wait(PAUSE)
        except BaseException as error:  # `watched` raises it
            self.failures.append(error)
            self.stop.set()
        finally:
            connection.close()

    def wait_until_all(self, *, admitted: bool, since: float) -> None:
        """Wait until each gate's newest answer to a question after `since` is `admitted`."""
        deadline = time.monotonic() + PATIENCE
        while not self.stop.is_set() and time.monotonic() < deadline:
            newest = [answers[-1] for answers in self.answers.values() if answers]
            if len(newest) == len(self.ask) and all(
                answer.began > since and answer.admitted == admitted for answer in newest
            ):
                return
            time.sleep(0.005)
        if not self.stop.is_set():
            raise TimeoutError(f"not every gate answered admitted={admitted}: {newest}")

    def latest_wrong(self, gate: str, *, admitted: bool, since: float, until: float) -> float:
        """Return how long after `since` the last question with a wrong answer was asked."""
        wrong = [
            answer.began - since
            for answer in self.answers[gate]
            if since <= answer.began < until and answer.admitted != admitted
        ]
        return max(wrong, default=0.0)


def measure(rounds: int) -> dict[str, Any]:
    """Top up and use up in turn, then flush Redis. Return times in seconds by gate."""
    import django

    django.setup()
    import redis
    from django.conf import settings

    from billing.allowances.grants import grant_credits
    from quota.resources import AI_CREDITS

    world = World()
    seen: dict[str, Any] = {"refused": {}, "admitted": {}, "healed": [], "let_through": {}}
    gates = Gates(world.gates())
    with gates.watched():
        gates.wait_until_all(admitted=False, since=time.monotonic())
        for _ in range(rounds):
            grant_credits(world.organization, AI_CREDITS, CREDITS * MICRO)
            _watch(gates, seen["admitted"], admitted=True)
            world.use_up()
            _watch(gates, seen["refused"], admitted=False)
    seen["asked"] = sum(map(len, gates.answers.values()))

    store = redis.Redis.from_url(settings.REDIS_URL)
    gates = Gates({gate: ask for gate, ask in world.gates().items() if gate != "gateway"})
    with gates.watched():
        gates.wait_until_all(admitted=False, since=time.monotonic())
        for _ in range(FLUSHES):
            store.flushall()
            began = time.monotonic()
            while not (store.exists(MARKER) and store.zscore(SET, world.project.api_token)):
                if time.monotonic() > began + PATIENCE:
                    raise TimeoutError("Redis was not rebuilt")
                time.sleep(0.005)
            seen["healed"].append(time.monotonic() - began)
            time.sleep(WATCHED)
    for gate, answers in gates.answers.items():
        seen["let_through"][gate] = sum(answer.admitted for answer in answers)
    seen["meanwhile"] = {gate: len(answers) for gate, answers in gates.answers.items()}
    return seen


def _watch(gates: Gates, times: dict[str, list[float]], *, admitted: bool) -> None:
    """Wait until a change that was just made has reached every gate, and record the time."""
    since = time.monotonic()
    gates.wait_until_all(admitted=admitted, since=since)
    until = max(since + MOST_TO_ADMIT, time.monotonic()) + WATCHED
    while time.monotonic() < until and not gates.stop.is_set():
        time.sleep(0.01)
    for gate in gates.ask:
        wrong = gates.latest_wrong(gate, admitted=admitted, since=since, until=until)
        times.setdefault(gate, []).append(wrong)


class World:
    """An organization on prepaid credits, a Slack workspace, and a token of a run."""

    def __init__(self) -> None:
        from django.conf import settings

        from billing.allowances.limits import set_limit
        from billing.organizations import create_organization, create_project
        from projects.authentication.credentials import issue_personal_api_key, mint_run_token
        from projects.models import SlackWorkspace
        from quota.resources import AI_CREDITS

        self.organization = create_organization("Bench")
        self.project = create_project(self.organization, "Bench")
        set_limit(self.organization, AI_CREDITS, 0)
        SlackWorkspace.objects.create(
            project=self.project, team_id="T1", bot_user_id="UBOT", bot_token="xoxb-of-no-value"
        )
        _, self.key = issue_personal_api_key(self.organization, "bench", ["project:read"])
        self.token = mint_run_token(self.project, uuid.uuid4(), ["slack_app"], timedelta(hours=1))
        self.secret = settings.SLACK_SIGNING_SECRETS[0]
        self.service = settings.GATEWAY_SERVICE_TOKENS[0]
        self.web = urlsplit(os.environ["TOLLGATE_URL"]).netloc
        self.gateway = urlsplit(os.environ["GATEWAY_URL"]).netloc
        self._numbers = itertools.count(1)

    def gates(self) -> dict[str, Callable[[], bool]]:
        """Return how to ask each gate. Each question opens a connection, to reach any process."""
        return {"endpoint": self._endpoint, "webhook": self._webhook, "gateway": self._gateway}

    def use_up(self) -> None:
        """Deliver the event that crosses the limit, and require that it is accepted."""
        event = {
            "uuid": str(uuid.uuid4()),
            "timestamp": datetime.now(UTC).isoformat(),
            "properties": {
                "ai_product": "slack_app",
                "$ai_total_cost_usd": str(CREDITS // 120),  # 120 credits a dollar
                "project_id": self.project.pk,
            },
        }
        headers = {"Authorization": f"Bearer {self.service}", "Content-Type": "application/json"}
        body = json.dumps({"batch": [event]})
        status, answer = _call(self.web, "POST", "/api/usage_events/", headers, body)
        if status != 200 or answer["results"][0]["status"] != "accepted":
            raise RuntimeError(f"the event was not accepted: {status} {answer}")

    def _endpoint(self) -> bool:
        headers = {"Authorization": f"Bearer {self.key}"}
        path = f"/api/projects/{self.project.pk}/quota_limits/"
        status, answer = _call(self.web, "GET", path, headers)
        if status != 200:
            raise RuntimeError(f"the endpoint answered {status}")
        return not answer["limited"]["ai_credits"]["limited"]

    def _webhook(self) -> bool:
        from workflows.models import Mention

        number = next(self._numbers)
        ts = f"{int(time.time())}.{number:06d}"
        event = {"type": "app_mention", "user": "U1", "channel": "C1", "ts": ts, "team": "T1"}
        body = json.dumps(
            {
                "type": "event_callback",
                "team_id": "T1",
                "event_id": f"Ev{uuid.uuid4().hex}",
                "event_time": int(time.time()),
                "authorizations": [{"team_id": "T1", "user_id": "UBOT", "is_bot": True}],
                "event": event | {"text": "<@UBOT> hello"},
            }
        )
        at = str(int(time.time()))
        signed = hmac.new(self.secret.encode(), f"v0:{at}:{body}".encode(), hashlib.sha256)
        headers = {
            "Content-Type": "application/json",
            "X-Slack-Request-Timestamp": at,
            "X-Slack-Signature": f"v0={signed.hexdigest()}",
        }
        status, _ = _call(self.web, "POST", "/slack/events/", headers, body)
        if status != 200:
            raise RuntimeError(f"the webhook answered {status}")
        return Mention.objects.get(ts=ts).state != Mention.State.REFUSED

    def _gateway(self) -> bool:
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "anthropic-version": "2023-06-01",
        }
        message = {"role": "user", "content": "hello"}
        body = json.dumps({"model": "claude-haiku-4-5", "max_tokens": 16, "messages": [message]})
        status, answer = _call(self.gateway, "POST", "/slack_app/v1/messages", headers, body)
        if status != 200 and answer["error"].get("reason") != "billable_credits":
            raise RuntimeError(f"the gateway answered {status}: {answer}")
        return status == 200


def _call(
    address: str, method: str, path: str, headers: dict[str, str], body: str | None = None
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content.startswith(b"{") else None
    finally:
        connection.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))

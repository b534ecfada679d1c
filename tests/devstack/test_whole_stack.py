"""The whole system as `make up` starts it: mentions, refusals, and the death of every process."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from devstack.env_file import read_env_file
from devstack.isolation import throw_away_environment
from devstack.servers import free_port
from tests import settings as suite
from tests.conftest import wait_until
from tests.devstack.processes import ROOT, Lines, started, wait_until_gone
from tests.postgres import postgres_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

BLOCKED = "@posthog/quota-limits/ai_credits"
QUESTION = "in acme/web-shop, how is the total of a basket computed?"


class Stack:
    """The running stack, as people and operators use it."""

    def __init__(self, directory: Path, lines: Lines, environment: dict[str, str]) -> None:
        self.lines = lines
        self.values = read_env_file(directory / "env")
        self.environment = environment | self.values
        self.project = json.loads((directory / "project.json").read_text())
        self.slack = f"http://127.0.0.1:{self.values['DEMO_SLACK_PORT']}"
        self.redis = redis.Redis.from_url(self.values["REDIS_URL"], decode_responses=True)

    # --- Slack -----------------------------------------------------------------------------------

    def mention(self, text: str = QUESTION) -> str:
        """Let a person mention the bot; returns the thread."""
        post = {"channel": "C1", "user": "U1", "text": f"<@UBOT> {text}"}
        return http(f"{self.slack}/_control/posts", post)[1]["ts"]

    def replies(self, thread: str) -> list[str]:
        _, messages = http(f"{self.slack}/_control/messages?channel=C1&thread_ts={thread}")
        return [message["text"] for message in messages[1:]]

    def reply(self, thread: str, within: float = 40) -> str:
        """Wait for the bot's reply in the thread and return it."""
        wait_until(lambda: self.replies(thread), within, f"a reply in {self.lines.text[-3000:]}")
        return self.replies(thread)[0]

    def reactions(self, thread: str) -> list[dict[str, Any]]:
        _, messages = http(f"{self.slack}/_control/messages?channel=C1&thread_ts={thread}")
        return messages[0]["reactions"]

    # --- operators -------------------------------------------------------------------------------

    def manage(self, *arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def set_limit(self, credits_: str) -> None:
        self.manage("set_limit", str(self.project["project_id"]), "ai_credits", credits_)

    def quota(self) -> dict[str, Any]:
        url = f"{self.values['TOLLGATE_URL']}/api/projects/{self.project['project_id']}"
        status, answer = http(f"{url}/quota_limits/", token=self.project["personal_api_key"])
        assert status == 200
        return answer["limited"]["ai_credits"]

    def token(self) -> str:
        """Return a token with which an agent calls the gateway."""
        project = str(self.project["project_id"])
        return self.manage("create_token", project, "--product", "slack_app").split()[-1]

    def call_gateway(self, token: str) -> tuple[int, Any]:
        body = {
            "model": "claude-haiku-4-5",
            "max_tokens": 20,
            "messages": [{"role": "user", "content": "hello"}],
        }
        return http(f"{self.values['GATEWAY_URL']}/slack_app/v1/messages", body, token)

    # --- processes -------------------------------------------------------------------------------

    def children(self) -> dict[int, str]:
        """Return the processes that the supervisor started, with their command lines."""
        leader = self.lines.process.pid
        pids = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
        commands = {int(pid): Path(f"/proc/{pid}/cmdline") for pid in pids}
        return {
            pid: file.read_bytes().replace(b"\0", b" ").decode()
            for pid, file in commands.items()
            if file.exists()
        }


def http(url: str, body: Any = None, token: str = "") -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", "anthropic-version": "2023-06-01"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("stack")
    environment = throw_away_environment(os.environ, str(directory))
    with ExitStack() as servers:
        if suite.ON_POSTGRES:
            data = suite.DIRECTORY / "postgres-of-the-stack"
            url = servers.enter_context(postgres_server(data, free_port()))
            environment["DATABASE_URL"] = url
        lines = servers.enter_context(started(["devstack"], environment))
        wait_until(
            lambda: (directory / "ready").exists() or lines.process.poll() is not None, 120, "start"
        )
        assert (directory / "ready").exists(), lines.text
        stack = Stack(directory, lines, environment)
        yield stack
        stack.redis.close()
        pids = list(stack.children())
        began = time.monotonic()
        lines.process.send_signal(signal.SIGINT)
        assert lines.end() == 0
        assert time.monotonic() - began < 10
        wait_until_gone(pids)
        assert lines.find("all stopped")


def test_a_mention_is_answered_in_its_thread_and_paid_for(stack: Stack) -> None:
    before = stack.quota()["usage"] or 0
    thread = stack.mention()
    assert stack.reply(thread).startswith("[demo model]")
    assert stack.reactions(thread)
    wait_until(lambda: (stack.quota()["usage"] or 0) > before, 20, "the usage")


def test_a_block_set_by_hand_is_obeyed_everywhere_and_lifts_as_it_is_removed(
    stack: Stack,
) -> None:
    token, member = stack.token(), stack.project["api_token"]
    assert stack.call_gateway(token)[0] == 200
    stack.redis.zadd(BLOCKED, {member: time.time() + 3600})
    try:
        assert stack.quota()["limited"]
        thread = stack.mention()
        assert "Top up at" in stack.reply(thread)
        assert not stack.reactions(thread)
        wait_until(lambda: stack.call_gateway(token)[0] == 429, 5, "the gateway's refusal")
        _, refusal = stack.call_gateway(token)
        assert refusal["error"]["type"] == "rate_limit_error"
        assert refusal["error"]["reason"] == "billable_credits"
    finally:
        stack.redis.zrem(BLOCKED, member)
    assert not stack.quota()["limited"]
    wait_until(lambda: stack.call_gateway(token)[0] == 200, 5, "the gateway letting calls through")
    assert stack.reply(stack.mention()).startswith("[demo model]")


def test_a_limit_below_the_usage_refuses_until_it_is_raised(stack: Stack) -> None:
    token = stack.token()
    assert stack.call_gateway(token)[0] == 200
    wait_until(lambda: stack.quota()["usage"], 20, "the usage")
    stack.set_limit("0")
    try:
        assert stack.quota()["reason"] == "limit_reached"
        assert stack.redis.zscore(BLOCKED, stack.project["api_token"])
        assert "Top up at" in stack.reply(stack.mention())
        wait_until(lambda: stack.call_gateway(token)[0] == 429, 5, "the gateway's refusal")
    finally:
        stack.set_limit("100")
    assert not stack.quota()["limited"]
    wait_until(lambda: stack.call_gateway(token)[0] == 200, 5, "the gateway letting calls through")
    assert stack.reply(stack.mention()).startswith("[demo model]")


def test_no_process_that_is_killed_takes_a_mention_or_its_usage_with_it(stack: Stack) -> None:
    first = stack.mention()
    stack.reply(first)
    wait_until(lambda: stack.quota()["usage"], 20, "the usage")
    before = stack.quota()["usage"]
    second = stack.mention()
    stack.reply(second)
    wait_until(lambda: stack.quota()["usage"] > before, 20, "the usage of one mention")
    after_one = stack.quota()["usage"]

    threads = []
    for pid, command in stack.children().items():
        if "devstack.warden" not in command:
            threads.append(patiently(stack.mention))
            os.kill(pid, signal.SIGKILL)
    assert len(threads) == 11

    wait_until(lambda: all(map(stack_answers(stack), threads)), 90, stack.lines.text[-5000:])
    assert [len(stack.replies(thread)) for thread in threads] == [1] * len(threads)
    least = after_one + len(threads) * (after_one - before) * 0.99
    wait_until(lambda: patiently(stack.quota)["usage"] >= least, 30, f"a usage of {least}")


def patiently(call: Any) -> Any:
    """Call until nothing stands in the way of an answer."""
    results: list[Any] = []

    def succeeds() -> bool:
        try:
            results.append(call())
        except (OSError, AssertionError):
            return False
        return True

    wait_until(succeeds, 30, f"{call} being answered")
    return results[0]


def stack_answers(stack: Stack) -> Any:
    def answers(thread: str) -> bool:
        try:
            return any(reply.startswith("[demo model]") for reply in stack.replies(thread))
        except OSError:
            return False

    return answers

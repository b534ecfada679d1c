"""The whole system as `make up` runs it, for tests that use it as people and operators do."""

import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import redis

from devstack.env_file import read_env_file
from tests.conftest import wait_until
from tests.devstack.processes import ROOT, started, wait_until_gone
from tests.stopwatch import Stopwatch

QUESTION = "in acme/web-shop, how is the total of a basket computed?"


class Stack:
    """A running stack: its Slack, its operators' commands, its gateway and its processes."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory = directory
        self.environment = environment
        self.running = ExitStack()
        self._operator: subprocess.Popen | None = None
        self._operator_is_busy = threading.Lock()

    def start(self) -> None:
        """Start the stack and wait until it is ready."""
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        self.lines = self.running.enter_context(started(["devstack"], self.environment))
        wait_until(lambda: ready.exists() or self.lines.process.poll() is not None, 120, "start")
        assert ready.exists(), self.lines.text
        self.values = read_env_file(self.directory / "env")
        self.project = json.loads((self.directory / "project.json").read_text())
        self.slack = f"http://127.0.0.1:{self.values['DEMO_SLACK_PORT']}"
        self.redis = redis.Redis.from_url(self.values["REDIS_URL"], decode_responses=True)
        self.running.callback(self.redis.close)

    def stop(self) -> None:
        """Stop the stack as Ctrl-C does. Fail if that takes ten seconds or leaves a process.

        Fail too if the bot sent blocks or views that the demo Slack refused.
        """
        if any("devstack.demo_slack" in command for command in self.children().values()):
            self._require_valid_blocks()
        pids = list(self.children())
        with Stopwatch() as waited:
            self.lines.process.send_signal(signal.SIGINT)
            assert self.lines.end() == 0
        assert waited.seconds < 10
        wait_until_gone(pids)
        self.running.close()

    def _require_valid_blocks(self) -> None:
        _, calls = http(f"{self.slack}/_control/calls")
        refused = [
            call for call in calls if "messages" in call["answer"].get("response_metadata", ())
        ]
        assert not refused, refused

    def kill(self) -> None:
        """Kill the supervisor. Fail if that leaves a process."""
        pids = list(self.children())
        self.lines.process.kill()
        self.lines.end()
        wait_until_gone(pids)
        self.running.close()

    # --- Slack -----------------------------------------------------------------------------------

    def mention(self, text: str = QUESTION) -> str:
        """Mention the bot as a person does; return the thread."""
        post = {"channel": "C1", "user": "U1", "text": f"<@UBOT> {text}"}
        return http(f"{self.slack}/_control/posts", post)[1]["ts"]

    def say(self, thread: str, text: str) -> None:
        """Reply in a thread without naming the bot."""
        post = {"channel": "C1", "user": "U1", "text": text, "thread_ts": thread}
        http(f"{self.slack}/_control/posts", post)

    def replies(self, thread: str) -> list[str]:
        _, messages = http(f"{self.slack}/_control/messages?channel=C1&thread_ts={thread}")
        return [message["text"] for message in messages[1:]]

    def reply(self, thread: str, within: float = 90) -> str:
        """Wait for the bot's reply in the thread and return it."""
        wait_until(lambda: self.replies(thread), within, f"a reply in {self.lines.text[-3000:]}")
        return self.replies(thread)[0]

    def reactions(self, thread: str) -> list[dict[str, Any]]:
        _, messages = http(f"{self.slack}/_control/messages?channel=C1&thread_ts={thread}")
        return messages[0]["reactions"]

    # --- operators -------------------------------------------------------------------------------

    def manage(self, *arguments: str) -> str:
        """Run a `manage.py` command; return what it prints."""
        with self._operator_is_busy:
            if self._operator is None:
                self._operator = self._start_operator()
            self._operator.stdin.write(f"{json.dumps(arguments)}\n")
            self._operator.stdin.flush()
            status, printed = json.loads(self._operator.stdout.readline())
        assert status == 0, printed
        return printed

    def _start_operator(self) -> subprocess.Popen:
        operator = subprocess.Popen(
            [sys.executable, "-m", "tests.devstack.operator_process"],
            cwd=ROOT,
            env=self.environment | self.values | {"DJANGO_SETTINGS_MODULE": "config.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.running.callback(self._end_operator)
        return operator

    def _end_operator(self) -> None:
        with self._operator:  # closes its input, which ends it
            self._operator = None

    def set_limit(self, credits_: str) -> None:
        self.manage("set_limit", str(self.project["project_id"]), "ai_credits", credits_)

    def quota(self) -> dict[str, Any]:
        url = f"{self.values['TOLLGATE_URL']}/api/projects/{self.project['project_id']}"
        status, answer = http(f"{url}/quota_limits/", token=self.project["personal_api_key"])
        assert status == 200
        return answer["limited"]["ai_credits"]

    def paid_runs(self) -> set[str]:
        """Return the task runs with usage in the ledger, except runs of tokens made by hand."""
        url = f"{self.values['TOLLGATE_URL']}/api/projects/{self.project['project_id']}"
        key = self.project["personal_api_key"]
        status, answer = http(f"{url}/usage/?group_by=run", token=key)
        assert status == 200
        used = {result["run"]: float(result["credits"]) for result in answer["results"]}
        list_runs = (
            "from coding_tasks.models import TaskRun\n"
            "print(*TaskRun.objects.values_list('pk', flat=True))"
        )
        runs = self.manage("shell", "--verbosity", "0", "-c", list_runs).split()
        return {run for run in runs if used.get(run, 0) > 0}

    def answered_mentions(self) -> int:
        """Return how many threads have an answer of the model."""
        _, posts = http(f"{self.slack}/_control/messages?channel=C1")
        return sum(
            reply.startswith("[demo model]") for post in posts for reply in self.replies(post["ts"])
        )

    def create_token(self) -> str:
        project = str(self.project["project_id"])
        return self.manage("create_token", project, "--product", "slack_app").split()[-1]

    def call_gateway(self, token: str) -> tuple[int, Any]:
        body = {
            "model": "claude-haiku-4-5",
            "max_tokens": 20,
            "messages": [{"role": "user", "content": "hello"}],
        }
        return http(f"{self.values['GATEWAY_URL']}/slack_app/v1/messages", body, token)

    def refusals(self, reason: str) -> float:
        """Return how many calls the gateway refused for this reason."""
        request = urllib.request.Request(
            f"{self.values['GATEWAY_URL']}/metrics",
            headers={"Authorization": f"Bearer {self.values['METRICS_TOKEN']}"},
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            lines = response.read().decode().splitlines()
        named = f'reason="{reason}"'
        found = [line for line in lines if "_refusals_total{" in line and named in line]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    # --- the model -------------------------------------------------------------------------------

    def answer_slowly(self, seconds: float, times: int = 1) -> None:
        """Delay the model's next answers."""
        replies = [{"text": f"[demo model] answer {n}", "delay": seconds} for n in range(times)]
        model = f"http://127.0.0.1:{self.values['DEMO_MODEL_PORT']}"
        assert http(f"{model}/_control/replies", replies)[0] < 300

    def times_asked(self, words: str) -> int:
        """Return how many requests to the model contain the words."""
        model = f"http://127.0.0.1:{self.values['DEMO_MODEL_PORT']}"
        return sum(words in json.dumps(seen) for seen in http(f"{model}/_control/requests")[1])

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

    def pids_of(self, argument: str) -> list[int]:
        return [pid for pid, command in self.children().items() if f" {argument} " in command]


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

"""How much time a mention adds to the agent's own: `python -m benchmarks.coding_runs [RUNS]`.

The whole stack runs, with the demo's Slack and model, and a fake GitHub that serves the repository.
It also measures how soon after "stop" the last call is admitted. README.coding.md has the figures.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.load.table import Table
from benchmarks.load.waiting import wait_for
from coding_tasks.agents.inside import small_agent
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from devstack.isolation import throw_away_environment
from tests.devstack.coding import NAME, add_shop, clone_url, serving_shop
from tests.devstack.stack import Stack, http
from tests.fake_github import FakeGitHub
from tests.git_repositories import run_git
from tests.git_server import TOKEN, USER

RUNS = 20
STOPS = 30
MOST_ADDED = 2.0
MOST_TO_STOP = 1.0
AT_ONCE = 16
PATIENCE = 90.0
"""Seconds to wait for anything, before the benchmark gives up."""
QUIET = 2.0
"""Seconds to wait after the answer to a stop, so that late calls are counted too."""
REQUEST = "add a --version flag"
LOUD = f"""
import os, threading, urllib.request
def call():
    while True:
        request = urllib.request.Request(
            os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages",
            b'{{"model": "claude-haiku-4-5", "max_tokens": 5,'
            b'  "messages": [{{"role": "user", "content": "loud"}}]}}',
            {{"x-api-key": os.environ["ANTHROPIC_AUTH_TOKEN"], "content-type": "application/json"}},
        )
        try:
            urllib.request.urlopen(request).read()
        except OSError:
            pass
for _ in range({AT_ONCE}):
    threading.Thread(target=call).start()
"""
"""An agent whose threads call the model without end, whatever the answers are."""


def main(runs: int) -> int:
    """Print the table; return 1 if a target was missed."""
    if reason := Bubblewrap().why_missing():
        print(f"no sandbox on this machine: {reason}")
        return 1
    table = Table()
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        with serving(folder) as (stack, github):
            mention_to_pull_request(table, stack, github, folder, runs)
            stop_to_last_call(table, stack)
    table.show()
    return 1 if table.missed else 0


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Stack, FakeGitHub]]:
    """Run the stack, and a GitHub with one repository, until the block ends."""
    (folder / "stack").mkdir()
    environment = throw_away_environment(os.environ, str(folder / "stack"))
    environment["GIT_ALLOWED_PROTOCOLS"] = "http,file"
    environment["GATEWAY_REQUESTS_PER_MINUTE"] = "1000000"  # the throttle is not what is measured
    environment["DEFAULT_AGENT"] = "small"
    environment["PROGRESS_AFTER_SECONDS"] = "600"  # the first message is the answer
    environment["AGENT_COMMANDS"] = json.dumps({"loud": ["python3", "-c", LOUD]})
    stack = Stack(folder / "stack", environment)
    with serving_shop(folder) as github, ExitStack() as ending:
        stack.start()
        ending.callback(stack.stop)
        stack.set_limit("1000000")
        add_shop(stack, github)
        yield stack, github


def mention_to_pull_request(
    table: Table, stack: Stack, github: FakeGitHub, folder: Path, runs: int
) -> None:
    """Compare a mention with the same agent run by hand in a clone, in turns."""
    token = stack.create_token()
    through, alone = [], []
    for number in range(runs + 1):
        began = time.monotonic()
        by_hand(stack, token, github, folder / f"by-hand-{number}")
        alone.append(time.monotonic() - began)
        began = time.monotonic()
        thread = stack.mention(f"in {NAME}, {REQUEST}")
        wait_for(lambda thread=thread: stack.replies(thread), "the answer", PATIENCE)  # type: ignore[misc]
        through.append(time.monotonic() - began)
        [said] = stack.replies(thread)
        assert f"/{NAME}/pull/" in said, said
    assert len(github.pull_requests) == runs + 1
    del through[0], alone[0]  # the first fetches the repository and fills caches
    added = statistics.median(through) - statistics.median(alone)
    table.add(
        "mention → answer with a pull request, beyond the same agent run by hand",
        f"{added:.2f} s more",
        f"≤ {MOST_ADDED:g} s more",
        added <= MOST_ADDED,
        f"{runs} of each, in turns: p50 {statistics.median(through):.2f} s (slowest "
        f"{max(through):.2f} s), by hand {statistics.median(alone):.2f} s",
    )


def by_hand(stack: Stack, token: str, github: FakeGitHub, clone: Path) -> None:
    """Do what a person would: clone, run the agent, commit, push a branch."""
    url = clone_url(github).replace("http://", f"http://{USER}:{TOKEN}@")
    run_git(clone.parent, "clone", "--quiet", url, str(clone))
    base = f"{stack.values['GATEWAY_URL']}/slack_app"
    subprocess.run(
        [
            *(sys.executable, "-I", str(Path(small_agent.__file__))),
            *("--base-url", base, "--model", "claude-sonnet-4-5"),
        ],
        cwd=clone,
        env={"PATH": os.environ["PATH"], "HOME": str(clone.parent), "TOLLGATE_TOKEN": token},
        input=REQUEST,
        text=True,
        check=True,
        capture_output=True,
    )
    run_git(clone, "commit", "--quiet", "--all", f"--message={REQUEST}")
    run_git(clone, "push", "--quiet", "origin", f"HEAD:{clone.name}")


def stop_to_last_call(table: Table, stack: Stack) -> None:
    """Measure from "stop" in the thread until the last call that still reached the model."""
    took, calls = [], 0
    for _ in range(STOPS):
        began = time.time()
        thread = stack.mention(f"in {NAME}, call the model without end, with loud")
        wait_for(lambda since=began: len(arrivals(stack, since)) > 4 * AT_ONCE, "calls", PATIENCE)  # type: ignore[misc]
        asked = time.time()
        stack.say(thread, "stop")
        wait_for(
            lambda thread=thread: len(stack.replies(thread)) > 1, "the answer to stop", PATIENCE
        )  # type: ignore[misc]
        time.sleep(QUIET)
        seen = arrivals(stack, began)
        took.append(max(0.0, max(seen) - asked))
        calls += len(seen)
    table.add(
        f"stop in the thread → last admitted call of {AT_ONCE} callers",
        f"p50 {statistics.median(took) * 1e3:.0f} ms, slowest {max(took) * 1e3:.0f} ms",
        f"p99 ≤ {MOST_TO_STOP:g} s",
        max(took) <= MOST_TO_STOP,
        f"{STOPS} stops, {calls:,} calls",
    )


def arrivals(stack: Stack, after: float) -> list[float]:
    """Return when each later call reached the model. Times are in seconds since 1970."""
    model = f"http://127.0.0.1:{stack.values['DEMO_MODEL_PORT']}"
    return [seen["at"] for seen in http(f"{model}/_control/requests?after={after}")[1]]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))

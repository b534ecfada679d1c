"""Whether runs with a cap stay within it and still end with an answer.

    python -m benchmarks.capped_runs [RUNS [FIRST]]

Each run is a process of the small agent, which calls a real gateway with a fake provider. It runs
without the sandbox, which makes no difference to credits and would take most of the time. A run's
number decides its cap and everything that its model says, so a long series can be made in pieces.
"""

import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load.table import Table
from coding_tasks.agents.inside import small_agent
from gateway import keys
from tests.conftest import wait_until
from tests.gateway.conftest import World, world_of
from tests.gateway.fake_provider import Script, Seen, json_script, messages_usage

RUNS = 1_000
AT_ONCE = 2
SMALLEST, LARGEST = 5.0, 2_000.0
"""In credits. With less than the smallest, not even a short last call fits."""
PROGRAM = Path(small_agent.__file__)
OWN_WORDS = "I stopped at the end of this turn's budget."
FILES = 30
MODEL = "claude-sonnet-4-5"


@dataclass(frozen=True)
class Ended:
    """One run: its cap and what it used, in micro-credits, and the agent's answer."""

    number: int
    cap: int
    used: int
    calls: int
    answer: str
    complete: bool


def main(runs: int, first: int) -> int:
    """Make the runs; return 1 if a target was missed."""
    table = Table()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        tree = root / "tree"
        make_tree(tree)
        with (
            world_of(root / "servers", GATEWAY_REQUESTS_PER_MINUTE="0") as world,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            world.provider.script = answer
            numbers = range(first, first + runs)
            ended = list(pool.map(lambda number: run(world, tree, root, number), numbers))
    report(table, ended)
    table.show()
    return 1 if table.missed else 0


def make_tree(tree: Path) -> None:
    """Write files that the agent can read."""
    tree.mkdir()
    for number in range(FILES):
        (tree / f"file{number}.py").write_text(f"VALUE_{number} = {number}\n" * 40 * (number + 1))


def cap_of(number: int) -> float:
    """Return the cap of a run in credits. Each magnitude is as likely as any other."""
    chance = random.Random(f"cap {number}")
    return round(math.exp(chance.uniform(math.log(SMALLEST), math.log(LARGEST))), 2)


def run(world: World, tree: Path, root: Path, number: int) -> Ended:
    """Run the agent once, and return how the run ended."""
    cap = cap_of(number)
    project = world.tollgate.project(credits=1_000_000)
    world.tollgate.cap(project, "run", cap)
    token = world.tollgate.token(project)
    home = root / f"home{number}"
    home.mkdir()
    agent = subprocess.run(
        [
            *(sys.executable, "-I", str(PROGRAM)),
            f"--base-url={world.url}/slack_app",
            f"--model={MODEL}",
            f"--trace-id={number:032x}",
        ],
        input=f"Do the work of run {number}.".encode(),
        cwd=tree,
        env={"HOME": str(home), "PATH": os.environ["PATH"], "TOLLGATE_TOKEN": token},
        capture_output=True,
        check=False,
        timeout=300,
    )
    events = [json.loads(line) for line in agent.stdout.splitlines()]
    answers = [event for event in events if event["type"] == "answer"]
    wait_until(lambda: world.account(project)["pending"] == 0, what="the booking of all calls")
    run_key = keys.run(str(world.tollgate.tokens[token]["task_run_id"]))
    spent = int(world.redis.hget(run_key, "spent") or 0)
    booked = world.tollgate.credits_booked(project)
    assert spent == booked, f"run {number}: {spent} spent, {booked} booked"
    return Ended(
        number,
        round(cap * 1_000_000),
        spent,
        len(world.tollgate.events_of(project)),
        answers[-1]["text"] if answers else "",
        bool(answers and answers[-1]["complete"]),
    )


def report(table: Table, ended: list[Ended]) -> None:
    """Add the figures of the runs."""
    runs = len(ended)
    within = sum(one.used <= one.cap for one in ended)
    answered = [one for one in ended if one.answer.strip()]
    whole = [one for one in answered if one.complete]
    own = [one for one in answered if one.answer.startswith(OWN_WORDS)]
    early = [one for one in answered if not one.complete and one not in own]
    calls = Counter(one.calls for one in ended)
    caps = sorted(one.cap / 1_000_000 for one in ended)
    table.add(
        "runs that used at most their cap",
        f"{within} of {runs}",
        "all",
        within == runs,
        f"caps from {caps[0]:.2f} to {caps[-1]:,.0f} credits",
        exactness=True,
    )
    table.add(
        "runs that ended with an answer",
        f"{len(answered)} of {runs}",
        "≥ 99 %",
        len(answered) >= 0.99 * runs,
        f"{len(whole)} finished, {len(early)} with the model's last call, "
        f"{len(own)} in the agent's own words, {calls[0]} of them because no call fitted",
        exactness=True,
    )
    could = [one for one in ended if one.calls]
    by_model = sum(one not in own for one in could)
    table.add(
        "answers by the model, if any call fitted into the cap", f"{by_model} of {len(could)}"
    )
    most = [one.used / one.cap for one in early]
    if most:
        table.add("share of the cap used by runs that ended early", f"{sum(most) / len(most):.0%}")


# --- the model ------------------------------------------------------------------------------------


def answer(seen: Seen) -> Script:
    """Return what the model says: tools in some calls, text in the last, and what that used.

    Some calls use everything that the gateway holds for them.
    """
    body = seen.json
    chance = random.Random(f"{seen.headers.get('traceparent')} {len(body['messages'])}")
    most = body["max_tokens"]
    worst = chance.random() < 0.1
    if not body.get("tools") or "tool_choice" in body or chance.random() < 0.02:
        content: list[dict[str, Any]] = [
            {"type": "text", "text": "I read files. The rest is missing. Ask me to go on."}
        ]
    else:
        content = [{"type": "text", "text": "I look further."}, *tools(chance)]
    usage = messages_usage(
        input_tokens=0,
        cache_creation_input_tokens=len(seen.body) if worst else len(seen.body) // 4,
        output_tokens=most if worst else min(most, chance.randint(40, 1_200)),
    )
    stop = "tool_use" if len(content) > 1 else "end_turn"
    return json_script(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": usage,
        }
    )


def tools(chance: random.Random) -> list[dict[str, Any]]:
    """Return calls of one to three tools."""
    return [
        {
            "type": "tool_use",
            "id": f"toolu_{chance.getrandbits(60):x}",
            "name": "read",
            "input": {"path": f"file{chance.randrange(FILES)}.py", "lines": chance.randint(1, 400)},
        }
        for _ in range(chance.randint(1, 3))
    ]


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(numbers + [RUNS, 0][len(numbers) :])))

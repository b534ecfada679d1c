"""What a mention costs until it is refused or answered: `python -m benchmarks.mentions [SECONDS]`.

The whole stack runs, with real Temporal and Redis, and a Slack that takes 200 ms for each call.
`--peers` installs a minimal bot of slack-bolt for comparison. README.coding.md has the figures.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlencode

from temporalio.client import Client

from benchmarks.load import peers, processes, wire
from benchmarks.load.generator import closed_loop, percentile
from benchmarks.load.mentions import Mentions, at_rate, request
from benchmarks.load.slack import SlowSlack
from benchmarks.load.table import Table
from benchmarks.load.waiting import wait_for
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from devstack.isolation import throw_away_environment
from devstack.servers import answers, free_port
from tests.devstack.stack import Stack, http
from tests.fakes import SIGNING_SECRET
from tests.git_repositories import make_repository

SECONDS = 60.0
IN_TIME = 0.25
TOO_LATE = 3.0
MIXED_RATE = 20.0
REFUSED_RATE = 100.0
STARTED_RATE = 3.0
REACTION = 1.0
CLOSED = 32
"""Mentions that the comparison keeps under way at once."""
TOGETHER = 60
"""Mentions that are posted at once to see how many are answered in a second."""
APPROVALS = 20
APPROVED = 2.0
PATIENCE = 300.0
"""Seconds to wait until everything that was posted is answered."""
QUESTION = "in acme/web-shop, how is the total of a basket computed?"
NOTHING = "in acme/empty, with nothing, do nothing"
BOLT = peers.INSTALLED / "bolt"
HERE = Path(__file__).resolve().parent


def main(seconds: float, *, with_peers: bool) -> int:
    """Print the table; return 1 if a target was missed."""
    table = Table()
    for problem in install_bolt() if with_peers else []:
        print(problem)
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as scratch, SlowSlack() as slack:
        folder = Path(scratch)
        folder.chmod(0o755)
        with serving(folder, slack) as stack:
            refusals(table, stack, slack, seconds / 2)
            comparison(table, stack, slack, folder, seconds / 4)
            mixed(table, stack, slack, seconds)
            reactions(table, stack, slack, seconds)
            if not Bubblewrap().why_missing():
                answers_a_second(table, stack, slack)
            approvals(table, stack, slack)
    table.show()
    return 1 if table.missed else 0


@contextmanager
def serving(folder: Path, slack: SlowSlack) -> Iterator[Stack]:
    """Run the stack with two workspaces: T1 has credits, T2 has none."""
    (folder / "stack").mkdir()
    environment = throw_away_environment(os.environ, str(folder / "stack")) | {
        "SLACK_API_URL": slack.api_url,
        "SLACK_SIGNING_SECRET": SIGNING_SECRET,
        "DEFAULT_AGENT": "reader",
        "AGENT_COMMANDS": json.dumps({"nothing": ["echo", "Done."]}),
        "AGENT_TURNS_PER_PROJECT": "0",
        "GATEWAY_REQUESTS_PER_MINUTE": "1000000",
        "GIT_ALLOWED_PROTOCOLS": "https,file",
        "PROGRESS_AFTER_SECONDS": "600",
    }
    make_repository(folder / "empty", {"README.md": "# Empty\n"})
    stack = Stack(folder / "stack", environment)
    with ExitStack() as ending:
        stack.start()
        ending.callback(stack.stop)
        stack.manage(
            "create_project", "--organization", "Acme", "--name", "Acme coding bot",
            "--limit", "1000000", "--repository", f"acme/empty=file://{folder}/empty",
            *_workspace("T1"),
        )  # fmt: skip
        add_workspace_without_credits(stack, "T2")
        yield stack


def add_workspace_without_credits(stack: Stack, team: str) -> None:
    """Add a workspace of a new organization that may use nothing; U1 approves credits there."""
    name, empty = f"Without {team}", stack.directory.parent / "empty"
    stack.manage(
        "create_project", "--organization", name, "--name", name, "--limit", "0",
        "--repository", f"acme/web-shop=file://{empty}", "--credits-channel", "C9",
        "--credits-approver", "U1=admin", *_workspace(team),
    )  # fmt: skip


def _workspace(team: str) -> list[str]:
    return [
        *("--slack-workspace", team, "--slack-bot-user", "UBOT"),
        *("--slack-bot-token", f"xoxb-{team}"),
    ]


def mentions_in(stack: Stack, *teams: str, text: str = QUESTION) -> Mentions:
    """Return a source of mentions in these workspaces."""
    return Mentions(stack.values["TOLLGATE_URL"], SIGNING_SECRET, teams, text)


def refusals(table: Table, stack: Stack, slack: SlowSlack, seconds: float) -> None:
    """Refuse mentions as fast as they come, in one web process."""
    mentions = mentions_in(stack, "T2")
    seen = asyncio.run(at_rate(mentions, REFUSED_RATE, seconds)).check()
    wait_for(lambda: said_in(slack, mentions), "the denials", PATIENCE)
    p99 = percentile(seen.totals, 0.99)
    table.add(
        f"refused mentions, {REFUSED_RATE:g} a second: answer of the webhook, p99",
        f"{p99 * 1e3:.0f} ms (p50 {percentile(seen.totals, 0.5) * 1e3:.0f} ms)",
        f"≤ {IN_TIME * 1e3:.0f} ms",
        p99 <= IN_TIME,
        f"{seen.calls:,} mentions, load {os.getloadavg()[0]:.1f}",
    )
    add_exactness(table, slack, mentions, "refused mentions with one denial each")


def mixed(table: Table, stack: Stack, slack: SlowSlack, seconds: float) -> None:
    """Post mentions, three quarters of them without credits."""
    mentions = mentions_in(stack, "T2", "T2", "T2", "T1")
    seen = asyncio.run(at_rate(mentions, MIXED_RATE, seconds)).check()
    wait_for(lambda: said_in(slack, mentions), "answers and denials", PATIENCE)
    p99, slowest = percentile(seen.totals, 0.99), max(seen.totals)
    table.add(
        f"mentions, {MIXED_RATE:g} a second, a quarter with credits: answer of the webhook, p99",
        f"{p99 * 1e3:.0f} ms (slowest {slowest * 1e3:.0f} ms)",
        f"≤ {IN_TIME * 1e3:.0f} ms, none above {TOO_LATE:g} s",
        p99 <= IN_TIME and slowest <= TOO_LATE,
        f"{seen.calls:,} mentions, load {os.getloadavg()[0]:.1f}",
    )
    add_exactness(table, slack, mentions, "of these, with one answer or denial each")


def reactions(table: Table, stack: Stack, slack: SlowSlack, seconds: float) -> None:
    """Measure until people see that the bot has begun."""
    mentions, before = mentions_in(stack, "T1"), len(slack.calls)
    asyncio.run(at_rate(mentions, STARTED_RATE, seconds)).check()
    wait_for(lambda: said_in(slack, mentions), "the answers", PATIENCE)
    reacted: dict[str, float] = {}
    for call in slack.of("reactions.add", before):
        reacted.setdefault(call.arguments["timestamp"], call.at)
    took = [reacted[ts] - at for ts, at in mentions.posted.items()]
    p99 = percentile(took, 0.99)
    table.add(
        f"mention → reaction, {STARTED_RATE:g} mentions a second, p99",
        f"{p99 * 1e3:.0f} ms (p50 {statistics.median(took) * 1e3:.0f} ms)",
        f"≤ {REACTION:g} s",
        p99 <= REACTION,
        f"{len(took)} mentions, load {os.getloadavg()[0]:.1f}",
    )


def answers_a_second(table: Table, stack: Stack, slack: SlowSlack) -> None:
    """Compare how many mentions are answered in a second with a workflow that does nothing."""
    warm = mentions_in(stack, "T1", text=NOTHING)
    asyncio.run(at_rate(warm, 1.0, 3.0)).check()
    wait_for(lambda: said_in(slack, warm), "the first answers", PATIENCE)
    activities = asyncio.run(activities_of_newest_mention(stack))
    mentions = mentions_in(stack, "T1", text=NOTHING)
    began = time.perf_counter()
    asyncio.run(at_rate(mentions, 1e6, TOGETHER / 1e6)).check()
    wait_for(lambda: said_in(slack, mentions), "the answers", PATIENCE)
    rate = TOGETHER / (time.perf_counter() - began)
    bare = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.load.bare_temporal"),
            *(stack.values["TEMPORAL_ADDRESS"], str(TOGETHER), str(activities)),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    share = rate / float(bare)
    table.add(
        f"mentions answered a second, {TOGETHER} at once, by an agent that does nothing",
        f"{rate:.1f} a second, {share:.2f} × {float(bare):.1f} of a bare workflow",
        "≥ 0.6 × bare",
        share >= 0.6,
        f"{activities} activities each",
    )


async def activities_of_newest_mention(stack: Stack) -> int:
    """Return how many activities, local ones included, the newest mention's workflow ran."""
    client = await Client.connect(stack.values["TEMPORAL_ADDRESS"])
    newest = None
    async for found in client.list_workflows("WorkflowType = 'MentionWorkflow'"):
        if newest is None or found.start_time > newest.start_time:
            newest = found
    assert newest is not None
    history = await client.get_workflow_handle(newest.id).fetch_history()
    return sum(
        event.HasField("activity_task_scheduled_event_attributes")
        or (
            event.HasField("marker_recorded_event_attributes")
            and event.marker_recorded_event_attributes.marker_name == "core_local_activity"
        )
        for event in history.events
    )


def approvals(table: Table, stack: Stack, slack: SlowSlack) -> None:
    """Measure from an approver's click until the refused mention's first call of a model."""
    took = []
    for number in range(APPROVALS):
        team = f"T{100 + number}"
        add_workspace_without_credits(stack, team)
        mentions, before = mentions_in(stack, team), len(slack.calls)
        asyncio.run(at_rate(mentions, 1.0, 1.0)).check()
        offer = button(slack, "chat.postEphemeral", before, "tollgate_ask_for_credits")
        click(stack, team, "U0", offer)
        approve = button(slack, "chat.postMessage", before, "tollgate_approve_for_task")
        clicked = time.time()
        click(stack, team, "U1", approve)
        wait_for(lambda since=clicked: called_since(stack, since), "a call of the model", PATIENCE)  # type: ignore[misc]
        took.append(min(called_since(stack, clicked)) - clicked)
        wait_for(lambda mentions=mentions: said_in(slack, mentions, 2), "the answer", PATIENCE)  # type: ignore[misc]
    table.add(
        "approval → first call of a model by the mention that was refused",
        f"p50 {statistics.median(took) * 1e3:.0f} ms, slowest {max(took) * 1e3:.0f} ms",
        f"p99 ≤ {APPROVED:g} s",
        max(took) <= APPROVED,
        f"{APPROVALS} approvals",
    )


Button = tuple[str, dict[str, str]]


def button(slack: SlowSlack, method: str, since: int, action_id: str) -> Button:
    """Wait for a message with the button; return the message's channel and the button."""

    def find() -> Button | None:
        for call in slack.of(method, since):
            for block in call.arguments.get("blocks") or []:
                for element in block.get("elements", []):
                    if element.get("action_id") == action_id:
                        return call.arguments["channel"], element
        return None

    wait_for(find, action_id, PATIENCE)
    found = find()
    assert found is not None
    return found


def click(stack: Stack, team: str, user: str, found: Button) -> None:
    """Click a button as Slack reports it."""
    channel, element = found
    payload = {
        "type": "block_actions",
        "team": {"id": team},
        "user": {"id": user, "team_id": team},
        "container": {"type": "message", "channel_id": channel, "message_ts": "1.000001"},
        "channel": {"id": channel},
        "trigger_id": "1.2.3",
        "actions": [element | {"block_id": "b", "action_ts": f"{time.time():.6f}"}],
    }
    body = urlencode({"payload": json.dumps(payload)}).encode()
    url, kind = stack.values["TOLLGATE_URL"], "application/x-www-form-urlencoded"
    sent = request(url, SIGNING_SECRET, "/slack/interactivity/", body, kind)

    async def send() -> wire.Reply:
        connection = await wire.connect(url)
        return await connection.call(sent)

    answer = asyncio.run(send())
    assert answer.status == 200, answer


def called_since(stack: Stack, since: float) -> list[float]:
    """Return when each later call reached the model."""
    url = f"http://127.0.0.1:{stack.values['DEMO_MODEL_PORT']}/_control/requests?after={since}"
    return [seen["at"] for seen in http(url)[1]]


# --- the peer ------------------------------------------------------------------------------------


def comparison(table: Table, stack: Stack, slack: SlowSlack, folder: Path, seconds: float) -> None:
    """Keep mentions without credits under way, here and at a minimal bot of slack-bolt."""
    rates: dict[str, list[float]] = {"Tollgate": [], "slack-bolt": []}
    if not BOLT.exists():
        print("slack-bolt is not installed: --peers")
        return
    for number in range(2):
        ours_now = mentions_in(stack, "T2")
        rates["Tollgate"].append(refused_a_second(ours_now, seconds))
        wait_for(lambda refused=ours_now: said_in(slack, refused), "the denials", PATIENCE)  # type: ignore[misc]
        with bolt(folder / f"bolt-{number}", slack) as url:
            theirs_now = Mentions(url, SIGNING_SECRET, ("T2",), QUESTION)
            rates["slack-bolt"].append(refused_a_second(theirs_now, seconds))
    ours, theirs = (statistics.mean(rates[name]) for name in rates)
    table.add(
        f"mentions refused a second, {CLOSED} under way, one web process",
        f"{ours:.0f}, slack-bolt on Django and SQLite {theirs:.0f}",
        "≥ slack-bolt",
        ours >= theirs,
        "in turns: " + ", ".join(f"{a:.0f}/{b:.0f}" for a, b in zip(*rates.values(), strict=True)),
    )


def refused_a_second(mentions: Mentions, seconds: float) -> float:
    """Keep mentions under way; return how many are answered in a second."""
    load = closed_loop(mentions, CLOSED, seconds=seconds)  # type: ignore[arg-type]
    return asyncio.run(load).check().rate


def install_bolt() -> list[str]:
    """Install slack-bolt, if it is missing; return why it could not be installed."""
    if BOLT.exists():
        return []
    python = str(BOLT / "bin" / "python")
    requirements = str(HERE / "requirements-bolt.txt")
    return peers.install_into(
        BOLT,
        [sys.executable, "-m", "venv", str(BOLT)],
        [python, "-m", "pip", "install", "-q", "-r", requirements],
    )


@contextmanager
def bolt(folder: Path, slack: SlowSlack) -> Iterator[str]:
    """Serve the bot as our own web process is served; yield its address."""
    port = free_port()
    folder.mkdir()
    environment = {
        "SLACK_SIGNING_SECRET": SIGNING_SECRET,
        "SLACK_API_URL": slack.api_url,
        "BOLT_DATABASE": str(folder / "bolt.sqlite3"),
        "PYTHONPATH": str(HERE / "load"),
    }
    python = BOLT / "bin" / "python"
    made = [str(python), str(HERE / "load" / "bolt_app.py"), "migrate"]
    subprocess.run(made, env=environment, check=True)
    url = f"http://127.0.0.1:{port}"
    with processes.running(
        [
            *(str(python.with_name("granian")), "--interface", "wsgi", "--port", str(port)),
            *("--blocking-threads", "16", "bolt_app:application"),
        ],
        folder / "bolt.log",
        lambda: answers(f"{url}/"),
        cores=os.sched_getaffinity(0),
        environment=environment,
    ):
        yield url


# --- what was said -------------------------------------------------------------------------------


def said_in(slack: SlowSlack, mentions: Mentions, times: int = 1) -> bool:
    """Return whether each mention's thread has that many messages."""
    said = Counter(call.arguments.get("thread_ts") for call in slack.of("chat.postMessage"))
    return all(said[ts] >= times for ts in mentions.posted)


def add_exactness(table: Table, slack: SlowSlack, mentions: Mentions, what: str) -> None:
    """Add a row: each thread has exactly one message."""
    said = Counter(call.arguments.get("thread_ts") for call in slack.of("chat.postMessage"))
    once = sum(said[ts] == 1 for ts in mentions.posted)
    total = len(mentions.posted)
    table.add(what, f"{once:,} of {total:,}", "all", once == total, exactness=True)


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if argument != "--peers"]
    sys.exit(main(float(given[0]) if given else SECONDS, with_peers="--peers" in sys.argv))

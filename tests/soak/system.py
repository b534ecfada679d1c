"""Run the whole system under load and with faults, then check that nothing was lost or doubled.

    python -m tests.soak.system [SECONDS] [--seed SEED]

People mention the bot and reply, and Slack delivers their events twice, late or out of order.
Clients call the gateway and hang up. The provider fails and breaks off. Programs are killed and
frozen, Redis is emptied, Slack fails, and top-ups arrive in between. Afterwards the provider's
records and Slack's threads show what should have been booked and said. DB=postgres runs it on
PostgreSQL.
"""

import argparse
import asyncio
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from devstack.isolation import throw_away_environment
from devstack.servers import free_port
from tests import settings as suite
from tests.devstack.stack import Stack
from tests.fakes import BOT_TOKEN, BOT_USER, SIGNING_SECRET, FakeSlack
from tests.postgres import postgres_server
from tests.soak.chaos import Chaos
from tests.soak.clients import Clients
from tests.soak.people import CHANNEL, People
from tests.soak.provider import Provider
from tests.soak.verdict import Verdict, judge_money, judge_threads, read_ledger

SECONDS = 360.0
SETTLE_WITHIN = 420.0  # seconds for work that still waits at the end
LIMIT = 200  # credits


def main() -> int:
    """Run one round and print the verdict; return 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", nargs="?", type=float, default=SECONDS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--settle-within", type=float, default=SETTLE_WITHIN, metavar="SECONDS")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what was started
    with (
        tempfile.TemporaryDirectory(prefix="tollgate-soak-") as directory,
        FakeSlack() as slack,
        Provider(options.seed) as provider,
        ExitStack() as postgres,
    ):
        environment = throw_away_environment(os.environ, directory) | {
            "SLACK_API_URL": slack.api_url,
            "SLACK_SIGNING_SECRET": SIGNING_SECRET,
            "ANTHROPIC_UPSTREAM_URL": provider.url,
            "OPENAI_UPSTREAM_URL": provider.url,
            "ANTHROPIC_API_KEY": "unused",
            "OPENAI_API_KEY": "unused",
            "DEFAULT_AGENT": "reader",  # the verdict expects one call for each mention
        }
        if suite.ON_POSTGRES:
            Path(directory).chmod(0o755)  # PostgreSQL's own user passes through
            data = Path(directory) / "postgres"
            environment["DATABASE_URL"] = postgres.enter_context(postgres_server(data, free_port()))
        stack = Stack(Path(directory), environment)
        stack.start()
        try:
            verdict = asyncio.run(_round(options, stack, slack, provider))
        finally:
            stack.kill()
    sys.stdout.write(f"seed {options.seed}\n{verdict}\n")
    if verdict.faults:
        log = Path(tempfile.mkdtemp(prefix="tollgate-soak-log-")) / "log"
        log.write_text(stack.lines.text)
        sys.stdout.write(f"what the programs said: {log}\n")
    return 1 if verdict.faults else 0


async def _round(
    options: argparse.Namespace, stack: Stack, slack: FakeSlack, provider: Provider
) -> Verdict:
    _connect(stack)
    slack.slack.events.app_url = stack.values["TOLLGATE_URL"]
    people = People(slack, options.seed)
    clients = Clients(stack.values["GATEWAY_URL"], stack.create_token(), options.seed)
    chaos = Chaos(stack, slack, options.seed)
    end = time.monotonic() + options.seconds
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(people.post_until(end))
        tasks.create_task(clients.call_until(end))
        tasks.create_task(chaos.run_until(end))
    await people.delivered()
    slack.slack.faults.clear()
    provider.answers.calm = True
    await chaos.top_up(2_000)  # runs that wait for credits continue
    allotted = LIMIT + chaos.granted

    def judge() -> Verdict:
        verdict = Verdict()
        charges = provider.book.charges()
        judge_threads(verdict, slack, people.threads, charges)
        judge_money(verdict, charges, read_ledger(stack.manage("export_usage")), allotted)
        verdict.faults += [f"Slack refused a message: {each}" for each in slack.violations()]
        return verdict

    verdict = await asyncio.to_thread(_settled, judge, options.settle_within)
    said = stack.lines.text
    verdict.figures |= {
        "happened": dict(chaos.happened.most_common()),
        "clients were answered": dict(clients.statuses.most_common()),
        "tracebacks in the log": said.count("Traceback (most recent call last)"),
        "errors in the log": len(re.findall(r'"level": ?"error"|\berror +\]|ERROR', said)),
    }
    return verdict


def _settled(judge: Callable[[], Verdict], within: float) -> Verdict:
    """Return the verdict as soon as it has no faults, or the last one when time is up."""
    deadline = time.monotonic() + within
    while True:
        verdict = judge()
        if not verdict.faults or time.monotonic() > deadline:
            return verdict
        time.sleep(3)


def _connect(stack: Stack) -> None:
    """Connect the demo project to this process's Slack, and set its limit."""
    stack.manage(
        "create_project", "--organization", "Acme", "--name", "Acme coding bot",
        "--limit", str(LIMIT), "--slack-workspace", "T1", "--slack-bot-user", BOT_USER,
        "--slack-bot-token", BOT_TOKEN, "--channel-default", f"{CHANNEL}=acme/web-shop",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

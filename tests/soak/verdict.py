"""Compare what was booked and said with the provider's and Slack's records."""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from tests.fakes import FakeSlack
from tests.soak.people import CHANNEL, Thread
from tests.soak.provider import Charge

CREDITS_PER_DOLLAR = 120  # with the markup of AI credits
PROVIDER_FAILED = "The AI provider did not answer"


@dataclass
class Verdict:
    """What was counted, and every fault that was found."""

    figures: dict[str, object] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{name:<36} {value}" for name, value in self.figures.items()]
        return "\n".join([*lines, *(f"FAULT: {fault}" for fault in self.faults)])


@dataclass(frozen=True)
class Booked:
    """The final cost of one event of the ledger, with its corrections."""

    dollars: Decimal
    estimated: bool


def read_ledger(exported: str) -> list[Booked]:
    """Return the events of an exported ledger (`manage.py export_usage`)."""
    rows = list(csv.DictReader(io.StringIO(exported)))
    adjusted: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        if row["kind"] in ("correction", "refund"):
            adjusted[row["adjusts"]] += Decimal(row["cost_usd"])
    return [
        Booked(
            Decimal(row["cost_usd"]) + adjusted.get(row["uuid"], Decimal(0)),
            row["is_estimated"] == "True" and row["uuid"] not in adjusted,
        )
        for row in rows
        if row["kind"] in ("usage", "late")
    ]


def judge_money(
    verdict: Verdict, charges: Iterable[Charge], ledger: Iterable[Booked], allotted: Decimal
) -> None:
    """Compare the ledger with the provider's record, and both with the allotted credits."""
    charges, ledger = list(charges), list(ledger)
    charged = Counter(charge.dollars for charge in charges if charge.dollars)
    exact = Counter(each.dollars for each in ledger if each.dollars and not each.estimated)
    estimates = [each.dollars for each in ledger if each.estimated]
    never_charged = exact - charged
    without_event = charged - exact
    missing = sum(dollars * times for dollars, times in without_event.items())
    spent = sum(charge.dollars for charge in charges) * CREDITS_PER_DOLLAR
    verdict.figures |= {
        "provider calls": len(charges),
        "booked exactly, estimated": f"{exact.total()}, {len(estimates)}",
        "credits charged, allotted": f"{spent:.2f}, {allotted}",
        "dollars without an event, estimated": f"{missing:.4f}, {sum(estimates):.4f}",
    }
    for dollars, times in never_charged.items():
        verdict.faults.append(f"${dollars} was booked {times} times more than it was charged")
    if without_event.total() > len(estimates):
        verdict.faults.append(
            f"{without_event.total()} calls have no event of their cost, and only "
            f"{len(estimates)} were estimated: {dict(without_event)}"
        )
    if missing > sum(estimates):
        verdict.faults.append(f"of ${missing} charged, only ${sum(estimates)} was booked")
    if spent > allotted:
        verdict.faults.append(f"overrun: {spent} of {allotted} credits")


def judge_threads(
    verdict: Verdict, slack: FakeSlack, threads: Iterable[Thread], charges: Iterable[Charge]
) -> None:
    """Check that each request in the threads was answered or refused exactly once."""
    calls: defaultdict[str, list[Charge]] = defaultdict(list)
    for charge in charges:
        for tag in charge.tags:
            calls[tag].append(charge)
    outcomes: Counter[str] = Counter()
    for thread in threads:
        said = [message["text"] for message in slack.bot_messages(CHANNEL, thread.ts)]
        others = [text for text in said if not text.startswith("answer to")]
        for post in thread.posts:
            if not post.acknowledged:  # Slack gave up, so the app never heard of it
                outcomes["never delivered"] += 1
                continue
            answers = sum(post.tag in text.split(":")[0].split() for text in said)
            if answers > 1:
                verdict.faults.append(f"{post.tag} was answered {answers} times: {said}")
            elif not answers and not others:
                verdict.faults.append(f"{post.tag} got no answer in {thread.ts}: {said}")
            outcomes["answered" if answers else "refused or given up"] += 1
        if len(others) > len(thread.posts) + thread.by_others:
            verdict.faults.append(f"{thread.ts} got too many messages: {said}")
        failed = any(not call.answered for post in thread.posts for call in calls[post.tag])
        if not failed and any(PROVIDER_FAILED in text for text in others):
            verdict.faults.append(f"{thread.ts} blames a provider that answered: {said}")
        for text in others:
            outcomes[f"said: {text[:60]}"] += 1
    paid = [sum(call.answered for call in made) for made in calls.values()]
    verdict.figures |= {
        "threads": len({thread.ts for thread in threads}),
        **dict(outcomes.most_common()),
        "paid for more than once": f"{sum(n - 1 for n in paid if n > 1)} of {sum(paid)} answers",
    }

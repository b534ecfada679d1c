"""Two months in the life of three organizations, always the same, to test pages with.

Acme works every weekday and has topped up. Globex has used up its limit, so a mention was refused.
Initech has done nothing yet.
"""

import random
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing import organizations
from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.credits import credits_micro
from billing.reports.daily_usage import report_what_was_booked
from coding_tasks.models import CodingTask, Repository, TaskRun
from projects.models import Organization, SlackWorkspace
from quota.gate import check
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, book, published, usage_event
from workflows.denials import refuse
from workflows.models import FollowUp, Mention, Notice

NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
SINCE = datetime(2026, 10, 1, 9, 0, tzinfo=UTC)
MODELS = ("claude-sonnet-4-6", "claude-sonnet-4-6", "claude-haiku-4-5", "gpt-5.1-codex")
REQUESTS = (
    "Why does the nightly import time out?",
    "Add a retry to the webhook client",
    "Write a test for the discount rounding",
    "The build is red since this morning, please look",
    "Explain what the scheduler does when a job is cancelled while it is being retried, and if two "
    "workers can ever pick up the same job",
)
LONG_NAME = "Globex Corporation, Department of Really Long Names and Even Longer Projects"


@dataclass
class Clock:
    """The current time, in place of Django's own."""

    now: datetime = SINCE

    def __call__(self) -> datetime:
        return self.now


@dataclass
class BusyMonth:
    """Everything that the fixture makes."""

    clock: Clock
    acme: Organization = field(init=False)
    globex: Organization = field(init=False)
    initech: Organization = field(init=False)
    refused: Mention = field(init=False)
    worked: CodingTask = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(7)
        self._number = 0
        self.acme = organizations.create_organization("Acme Robotics")
        self.globex = organizations.create_organization(LONG_NAME)
        self.initech = organizations.create_organization("Initech")
        by = {"actor": "carla", "reason": "plan of 2026"}
        set_limit(self.acme, AI_CREDITS, 1000 * CREDIT, **by)
        set_limit(self.globex, AI_CREDITS, 120 * CREDIT, **by)
        set_limit(self.initech, AI_CREDITS, 50 * CREDIT, **by)
        acme = self._workspace(self.acme, "Bot", "T0ACME", "Acme")
        globex = self._workspace(self.globex, "Assistant", "T0GLOBEX", "Globex")
        organizations.create_project(self.initech, "Bot")
        self._live(acme, globex)
        self._refuse(globex)
        self._follow_up()
        self.clock.now = NOW
        report_what_was_booked()

    def _workspace(
        self, organization: Organization, project: str, team: str, name: str
    ) -> SlackWorkspace:
        made = organizations.create_project(organization, project)
        Repository.objects.create(
            project=made, full_name=f"{name.lower()}/shop", clone_url="https://example.com/shop.git"
        )
        return SlackWorkspace.objects.create(
            project=made, team_id=team, name=name, bot_user_id="U0BOT", bot_token="xoxb-1"
        )

    def _live(self, acme: SlackWorkspace, globex: SlackWorkspace) -> None:
        day = SINCE
        while day < NOW:
            self.clock.now = day
            if day.date() == datetime(2026, 11, 18).date():  # noqa: DTZ001
                reason = "end of the quarter"
                grant_credits(self.acme, AI_CREDITS, 250 * CREDIT, actor="carla", reason=reason)
            weekday = day.weekday() < 5
            events = [self._routing(acme)]
            for _ in range(self._random.randint(2, 5) if weekday else self._random.randint(0, 1)):
                self.worked, generations = self._work(acme, self._random.choice("ABCDEFGHIJKLM"))
                events += generations
            if weekday and not check(globex.project).limited:
                events += self._affordable(self._work(globex, "Z")[1])
            self.clock.now = min(day + timedelta(hours=8), NOW)
            book(*events)
            day += timedelta(days=1)

    def _work(self, workspace: SlackWorkspace, user: str) -> tuple[CodingTask, list[dict]]:
        """Record an answered mention; return its task and the generations of its run."""
        self._number += 1
        at = self.clock.now + timedelta(minutes=self._random.randint(0, 240))
        ts = f"{int(at.timestamp())}.{self._number:06}"
        names = {"workspace": workspace, "channel_id": "C0SHOP", "thread_ts": ts}
        text = self._random.choice(REQUESTS)
        workflow_id = f"mention-{workspace.team_id}-C0SHOP-{ts}"
        user_id = f"U0USER{user}"
        Mention.objects.create(
            **names,
            team_id=workspace.team_id,
            ts=ts,
            user_id=user_id,
            text=f"<@U0BOT> {text}",
            state=Mention.State.ANSWERED,
            workflow_id=workflow_id,
        )
        task = CodingTask.objects.create(
            **names,
            project=workspace.project,
            repository=workspace.project.repositories.get(),
            owner_slack_user_id=user_id,
            title=text[:200],
            permalink=f"https://example.slack.com/archives/C0SHOP/p{ts.replace('.', '')}",
            workflow_id=workflow_id,
            state=CodingTask.State.DONE,
        )
        run = TaskRun.objects.create(
            task=task, message_ts=ts, request=text, answer="Done.", state=TaskRun.State.SUCCEEDED
        )
        model = self._random.choice(MODELS)
        return task, [
            usage_event(
                workspace.project,
                f"0.{self._random.randint(15, 80):03}",
                at=at + timedelta(minutes=number),
                uuid=str(self._uuid()),
                distinct_id=workspace.distinct_id(user_id),
                properties={"task_run_id": str(run.pk), "$ai_model": model},
            )
            for number in range(self._random.randint(1, 5))
        ]

    def _affordable(self, events: list[dict]) -> list[dict]:
        """Return the generations that the gateway lets through: never more than is left."""
        left = published(self.globex).remaining_micro
        passed = []
        for event in events:
            cost = min(
                Decimal(event["properties"]["$ai_total_cost_usd"]), Decimal(left) / 120_000_000
            )
            left -= credits_micro(cost, AI_CREDITS)
            event["properties"]["$ai_total_cost_usd"] = str(cost)
            if cost:
                passed.append(event)
        return passed

    def _routing(self, workspace: SlackWorkspace) -> dict:
        """Return the event of choosing a repository: it costs less than a hundredth of a credit."""
        return usage_event(
            workspace.project,
            "0.00004",
            at=self.clock.now,
            uuid=str(self._uuid()),
            distinct_id=workspace.distinct_id("U0USERA"),
            properties={
                "ai_product": "slack_app_routing",
                "$ai_model": "claude-haiku-4-5",
                "task_run_id": None,
            },
        )

    def _refuse(self, workspace: SlackWorkspace) -> None:
        verdict = check(workspace.project, to_start=True)
        assert verdict.limited
        self.refused = Mention.objects.create(
            workspace=workspace,
            team_id=workspace.team_id,
            channel_id="C0SHOP",
            ts="1795442390.000100",
            thread_ts="1795442390.000100",
            user_id="U0USERZ",
            text="<@U0BOT> One more: why is the cart empty after login?",
        )
        refuse(self.refused, verdict)
        self.refused.refresh_from_db()
        Notice.objects.filter(mention=self.refused).update(
            state=Notice.State.SENT, sent_at=self.clock.now
        )

    def _follow_up(self) -> None:
        task = self.worked
        ts = f"{int(self.clock.now.timestamp())}.900000"
        FollowUp.objects.create(
            workspace=task.workspace,
            channel_id=task.channel_id,
            ts=ts,
            thread_ts=task.thread_ts,
            user_id=task.owner_slack_user_id,
            text="And also in the admin, please.",
            addressed=False,
            workflow_id=task.workflow_id,
            state=FollowUp.State.HANDLED,
        )
        run = TaskRun.objects.create(
            task=task,
            message_ts=ts,
            request="And also in the admin, please.",
            state=TaskRun.State.SUCCEEDED,
        )
        book(
            usage_event(
                task.project,
                "0.0421",
                at=self.clock.now,
                uuid=str(self._uuid()),
                distinct_id=task.workspace.distinct_id(task.owner_slack_user_id),
                properties={"task_run_id": str(run.pk), "$ai_model": "claude-haiku-4-5"},
            )
        )

    def _uuid(self) -> object:

        return uuid.UUID(int=self._random.getrandbits(128), version=4)

"""The world of the workflow tests: a team with credits, its Slack and its repositories."""

from dataclasses import dataclass
from datetime import UTC, datetime

from coding_tasks.models import CodingTask, Repository
from projects.models import Organization, Project, SlackWorkspace
from quota.resources import AI_CREDITS
from tests.conftest import wait_until
from tests.fakes import BOT_TOKEN, BOT_USER, FakeSlack
from tests.workflows.fake_gateway import FakeGateway
from workflows import tasks
from workflows.intake import follow_ups
from workflows.models import FollowUp, Mention, Notice
from workflows.temporal import client

FAR_FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
FINAL = {Mention.State.REFUSED, Mention.State.FORWARDED, Mention.State.ANSWERED}
FINAL |= {Mention.State.FAILED}


@dataclass
class World:
    """Everything a mention meets, and what people and operators do to it."""

    slack: FakeSlack
    gateway: FakeGateway
    redis: object
    project: Project
    workspace: SlackWorkspace

    def add_repository(self, full_name: str, clone_url: str) -> Repository:
        return Repository.objects.create(
            project=self.project, full_name=full_name, clone_url=clone_url
        )

    def limit(self, resource: str = AI_CREDITS) -> None:
        """Block the project by hand, as an operator may."""
        key = f"@posthog/quota-limits/{resource}"
        self.redis.zadd(key, {self.project.api_token: FAR_FUTURE.timestamp()})

    def limit_after_next_gate(self) -> None:
        """Block the project just before the gateway refuses a call."""
        self.gateway.before_refusing(self.limit)

    def top_up(self, resource: str = AI_CREDITS) -> None:
        self.redis.zrem(f"@posthog/quota-limits/{resource}", self.project.api_token)

    def mention(
        self, text: str = "what is this?", *, thread_ts: str | None = None, user: str = "U1"
    ) -> Mention:
        """Post a mention of the bot and record it, as the webhook does."""
        post = self.slack.post(f"<@{BOT_USER}> {text}", user=user, thread_ts=thread_ts)
        return Mention.objects.create(
            workspace=self.workspace,
            team_id="T1",
            channel_id="C1",
            ts=post["ts"],
            thread_ts=thread_ts or post["ts"],
            user_id=user,
            text=post["text"],
        )

    def start(self, text: str = "what is this?", **fields: str) -> Mention:
        mention = self.mention(text, **fields)
        client.start_mention(mention)
        return mention

    def handle(self, text: str = "what is this?", **fields: str) -> Mention:
        """Start a mention and wait for its end."""
        mention = self.start(text, **fields)
        self.wait_for_end(mention)
        return mention

    def wait_for_end(self, mention: Mention, state: str | None = None) -> None:
        def ended() -> bool:
            mention.refresh_from_db()
            return mention.state in FINAL

        wait_until(ended, what=f"an end of the mention {mention.text!r}")
        assert state in (None, mention.state), mention.outcome

    def reply(self, mention: Mention, text: str, *, addressed: bool = False) -> FollowUp:
        """Have the author reply in the thread; record and signal it as the webhook does."""
        follow_up = self.posted_reply(mention, text)
        follow_up.addressed = addressed
        follow_up.workflow_id = CodingTask.objects.get(thread_ts=mention.thread_ts).workflow_id
        follow_up.save()
        follow_ups.signal(follow_up)
        return follow_up

    def reply_early(self, mention: Mention, text: str) -> FollowUp:
        """Have the author reply before the mention has a task; record and signal the reply."""
        follow_up = self.posted_reply(mention, text)
        assert follow_ups.record_early(follow_up)
        follow_ups.signal(follow_up)
        return follow_up

    def posted_reply(self, mention: Mention, text: str) -> FollowUp:
        post = self.slack.post(text, user=mention.user_id, thread_ts=mention.thread_ts)
        return FollowUp(
            workspace=self.workspace,
            channel_id="C1",
            ts=post["ts"],
            thread_ts=mention.thread_ts,
            user_id=mention.user_id,
            text=text,
            addressed=False,
        )

    def wait_for_follow_up(self, follow_up: FollowUp, state: str) -> None:
        def there() -> bool:
            follow_up.refresh_from_db()
            return follow_up.state == state

        wait_until(there, what=f"the follow-up being {state}")

    def said(self, thread_ts: str) -> list[str]:
        """Return what the bot said in a thread."""
        return [message["text"] for message in self.slack.bot_messages("C1", thread_ts)]

    def wait_until_said(self, thread_ts: str, count: int) -> list[str]:
        """Wait for messages of the bot, and send what waits for others in the thread."""

        def there() -> bool:
            tasks.deliver_pending_notices()
            return len(self.said(thread_ts)) >= count

        wait_until(there, what=f"{count} messages of the bot")
        return self.said(thread_ts)

    def send_all(self) -> None:
        """Send what is due, and what waits for it, as the sweeps do within seconds."""

        def is_sent() -> bool:
            tasks.deliver_pending_notices()
            return not Notice.objects.filter(state__in=Notice.UNSENT).exists()

        wait_until(is_sent, what="every message being sent")

    def notices(self, kind: str) -> list[Notice]:
        return list(Notice.objects.filter(kind=kind).order_by("created_at"))


def make_world(slack: FakeSlack, gateway: FakeGateway, redis: object) -> World:
    organization = Organization.objects.create(name="Acme")
    project = Project.objects.create(organization=organization, name="Default")
    workspace = SlackWorkspace.objects.create(
        project=project,
        team_id="T1",
        name="Acme",
        app_id="A1",
        bot_user_id=BOT_USER,
        bot_id="B1",
        bot_token=BOT_TOKEN,
    )
    return World(slack, gateway, redis, project, workspace)

"""People in Slack who mention the bot and reply. Slack delivers late, twice or out of order."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any

from devstack.demo_slack.events import EVENTS_PATH, sign
from tests.fakes import BOT_USER, FakeSlack

CHANNEL = "C1"
OWNERS = ("U1", "U2")
_GIVE_UP = 30.0  # seconds of retries, after which Slack would give up too


@dataclass
class Post:
    """A post that asks the bot for something; an acknowledged one must be answered."""

    tag: str
    ts: str
    acknowledged: bool = False


@dataclass
class Thread:
    """A thread that began with a mention."""

    ts: str
    owner: str
    posts: list[Post] = field(default_factory=list)
    by_others: int = 0


class People:
    """Everybody who posts; `threads` records what they posted."""

    def __init__(self, slack: FakeSlack, seed: int) -> None:
        self._slack = slack
        self._random = random.Random(f"people {seed}")
        self._deliveries: set[asyncio.Task[None]] = set()
        self._count = 0
        self.threads: list[Thread] = []

    async def post_until(self, end: float) -> None:
        """Post about once a second until the deadline."""
        while time.monotonic() < end:
            await self._act()
            await asyncio.sleep(self._random.uniform(0.2, 1.2))

    async def delivered(self) -> None:
        """Wait until Slack has delivered all events."""
        while self._deliveries:
            await asyncio.wait(self._deliveries)

    async def _act(self) -> None:
        choice = self._random.random()
        recent = self.threads[-20:]
        if choice < 0.55 or not recent:
            self._mention()
        elif choice < 0.70:
            thread = self._mention()
            self._reply(thread, reply_first=self._random.random() < 0.5)
        elif choice < 0.90:
            self._reply(self._random.choice(recent))
        else:
            self._remark_by_another(self._random.choice(recent))

    def _mention(self) -> Thread:
        owner = self._random.choice(OWNERS)
        tag, message = self._add(f"<@{BOT_USER}> in acme/web-shop, how are totals added?", owner)
        thread = Thread(message["ts"], owner)
        self.threads.append(thread)
        post = Post(tag, message["ts"])
        thread.posts.append(post)
        # Slack sends both events for one post, each with its own event id.
        self._tell(message, "app_mention", post, self._random.uniform(0, 0.4))
        self._tell(message, "message", post, self._random.uniform(0, 0.4))
        return thread

    def _reply(self, thread: Thread, *, reply_first: bool = False) -> None:
        tag, message = self._add("and how are they rounded?", thread.owner, thread.ts)
        post = Post(tag, message["ts"])
        thread.posts.append(post)
        self._tell(message, "message", post, 0 if reply_first else self._random.uniform(0.3, 1.0))

    def _remark_by_another(self, thread: Thread) -> None:
        other = OWNERS[1 - OWNERS.index(thread.owner)]
        _, message = self._add("I would like to know too", other, thread.ts)
        thread.by_others += 1
        self._tell(message, "message", Post("", message["ts"]), 0)

    def _add(
        self, text: str, user: str, thread_ts: str | None = None
    ) -> tuple[str, dict[str, Any]]:
        self._count += 1
        tag = f"#m{self._count}"
        message: dict[str, Any] = {"user": user, "text": f"{text} {tag}", "team": "T1"}
        if thread_ts is not None:
            message["thread_ts"] = thread_ts
        return tag, self._slack.slack.workspace.add_message(CHANNEL, message)

    def _tell(self, message: dict[str, Any], kind: str, post: Post, after: float) -> None:
        envelope = self._slack.event(message, kind, channel=CHANNEL)
        copies = self._random.choice((1, 1, 1, 2, 3))
        for number in range(copies):
            delay = after + number * self._random.uniform(0, 2)
            task = asyncio.create_task(self._deliver(envelope, post, delay))
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, envelope: dict[str, Any], post: Post, delay: float) -> None:
        """Deliver an event as Slack does, again and again until it is acknowledged."""
        await asyncio.sleep(delay)
        events = self._slack.slack.events
        body = self._slack.signed(EVENTS_PATH, envelope).body
        began, attempt = time.monotonic(), 0
        while time.monotonic() - began < _GIVE_UP:
            headers = {"X-Slack-Retry-Num": str(attempt)} if attempt else {}
            answer = await events.send(sign(events.signing_secret, EVENTS_PATH, body), headers)
            if 200 <= answer.status < 300:
                post.acknowledged = True
                return
            attempt += 1
            await asyncio.sleep(self._random.uniform(0.5, 2))

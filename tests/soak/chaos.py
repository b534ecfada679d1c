"""Faults while people work: programs die or freeze, Redis is emptied, Slack fails."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from decimal import Decimal

import redis

from tests.devstack.stack import Stack
from tests.fakes import FakeSlack

PROGRAMS = {
    "web": "config.wsgi",
    "worker": "run_worker",
    "celery": "config.celery worker",
    "beat": "config.celery beat",
    "reconciler": "run_reconciler",
    "gateway": "-m gateway",
    "redis": ":{REDIS_PORT} ",  # as in its process title
    "gateway-redis": ":{GATEWAY_REDIS_PORT} ",
    "temporal": "temporal server",
}
TOP_UPS = (100, 200, 400)
_PAUSE_BETWEEN_KILLS = 15.0  # seconds for one program


class Chaos:
    """Causes random faults and top-ups; `happened` counts them."""

    def __init__(self, stack: Stack, slack: FakeSlack, seed: int) -> None:
        self._stack = stack
        self._slack = slack
        self._random = random.Random(f"chaos {seed}")
        self._killed: dict[str, float] = {}
        self.granted = Decimal(0)
        self.happened: Counter[str] = Counter()

    async def run_until(self, end: float) -> None:
        """Cause a fault every few seconds until the deadline, and top up now and then."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._disrupt_until(end))
            tasks.create_task(self._top_up_until(end))

    async def top_up(self, amount: int) -> None:
        """Grant credits as an operator does, until it succeeds."""
        project = str(self._stack.project["project_id"])
        key = f"soak-{self._random.getrandbits(64)}"
        arguments = ["grant_credits", project, "ai_credits", str(amount), "--idempotency-key", key]
        while True:
            try:
                await asyncio.to_thread(self._stack.manage, *arguments)
                break
            except AssertionError:  # the database or Redis is being killed
                await asyncio.sleep(1)
        self.granted += amount
        self.happened["top-up"] += 1

    async def _disrupt_until(self, end: float) -> None:
        kinds: tuple[Callable[[], Coroutine[None, None, str]], ...] = (
            *(self._kill,) * 4,
            *(self._freeze,) * 3,
            self._empty_redis,
            *(self._slack_fails,) * 3,
            self._kill_both_gates,
        )
        while time.monotonic() < end:
            await asyncio.sleep(self._random.uniform(2, 8))
            self.happened[await self._random.choice(kinds)()] += 1

    async def _top_up_until(self, end: float) -> None:
        while time.monotonic() < end:
            await asyncio.sleep(self._random.uniform(8, 25))
            await self.top_up(self._random.choice(TOP_UPS))

    def _pid(self, name: str) -> int | None:
        wanted = PROGRAMS[name].format(**self._stack.values)
        for pid, command in self._stack.children().items():
            if wanted in f"{command} ":
                return pid
        return None

    def _signal(self, name: str, number: signal.Signals) -> None:
        pid = self._pid(name)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, number)

    def _can_be_killed(self, name: str) -> bool:
        now = time.monotonic()
        if now - self._killed.get(name, -_PAUSE_BETWEEN_KILLS) < _PAUSE_BETWEEN_KILLS:
            return False
        self._killed[name] = now
        return True

    async def _kill(self) -> str:
        name = self._random.choice([*PROGRAMS])
        if self._can_be_killed(name):
            self._signal(name, signal.SIGKILL)
            return f"killed {name}"
        return "spared"

    async def _kill_both_gates(self) -> str:
        for name in ("gateway", "web"):
            if self._can_be_killed(name):
                self._signal(name, signal.SIGKILL)
            await asyncio.sleep(self._random.uniform(0, 2))
        return "killed gateway and web"

    async def _freeze(self) -> str:
        name = self._random.choice([*PROGRAMS])
        longest = 20 if name == "gateway-redis" else 4
        self._signal(name, signal.SIGSTOP)
        await asyncio.sleep(self._random.uniform(0.5, longest))
        self._signal(name, signal.SIGCONT)
        return f"froze {name}"

    async def _empty_redis(self) -> str:
        with suppress(redis.RedisError):
            await asyncio.to_thread(self._stack.redis.flushall)
        return "emptied redis"

    async def _slack_fails(self) -> str:
        method = self._random.choice(
            ("chat.postMessage", "reactions.add", "users.info", "conversations.replies", "*")
        )
        match self._random.randrange(4):
            case 0:
                self._slack.fail_next(method, times=3)
            case 1:
                self._slack.fail_next(method, "internal_error", status=500, times=2)
            case 2:
                self._slack.drop_answer_next(method)
            case _:
                self._slack.hang_next(method, 4)
        return "slack failed"

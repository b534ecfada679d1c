"""Signed mentions for the webhook, and a loop that posts them at a steady rate."""

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.load import wire
from benchmarks.load.generator import Result
from devstack.demo_slack.events import EVENTS_PATH, sign

CHANNELS = 200
USERS = 50


@dataclass
class Mentions:
    """The mentions that people of some workspaces post, in turn. `posted` has their timestamps."""

    url: str
    secret: str
    teams: tuple[str, ...]
    text: str
    posted: dict[str, float] = field(default_factory=dict)
    """When each was posted, in seconds since 1970, by `ts`."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def next(self) -> tuple[str, bytes]:
        """Return the timestamp and the whole request of one more mention."""
        number = next(self._numbers)
        team = self.teams[number % len(self.teams)]
        now = time.time()
        ts = f"{int(now)}.{number % 1_000_000:06d}"
        self.posted[ts] = now
        event = {
            "type": "app_mention",
            "team": team,
            "user": f"U{number % USERS}",
            "channel": f"C{number % CHANNELS}",
            "ts": ts,
            "text": f"<@UBOT> {self.text}",
        }
        document = {
            "type": "event_callback",
            "team_id": team,
            "event_id": f"Ev{uuid.uuid4().hex}",
            "event_time": int(now),
            "authorizations": [{"team_id": team, "user_id": "UBOT", "is_bot": True}],
            "event": event,
        }
        return ts, request(self.url, self.secret, EVENTS_PATH, json.dumps(document).encode())


def request(
    url: str, secret: str, path: str, body: bytes, content_type: str = "application/json"
) -> bytes:
    """Return a signed request as Slack sends it."""
    signed = sign(secret, path, body, content_type)
    headers = {
        "Host": url.removeprefix("http://"),
        **signed.headers,
        "Content-Length": str(len(body)),
    }
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"POST {path} HTTP/1.1", *lines, "", ""]).encode() + body


async def at_rate(mentions: Mentions, rate: float, seconds: float) -> Result:
    """Return the results of `rate` mentions a second, whether or not earlier ones were answered.

    Times count from the moment a mention was due, so a lag of the generator is not hidden.
    """
    result = Result()
    free: list[wire.ClientConnection] = []
    began = time.perf_counter()

    async def connected() -> wire.ClientConnection:
        while free:
            kept = free.pop()
            if not kept.lost:  # the server closes idle ones
                return kept
        return await wire.connect(mentions.url)

    async def post(due: float) -> None:
        connection = await connected()
        reply = await connection.call(mentions.next()[1])
        reply.started = due
        result.add(reply)
        if reply.complete and not connection.lost:
            free.append(connection)

    async with asyncio.TaskGroup() as posting:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(due - time.perf_counter())
            posting.create_task(post(due))
    result.elapsed = time.perf_counter() - began
    for connection in free:
        connection.close()
    return result

"""The addresses at which the app can answer an interaction, five times within half an hour.

Source: https://docs.slack.dev/interactivity/handling-user-interaction#message_responses
"""

import time
import uuid
from dataclasses import dataclass

from devstack.demo_slack.database import Database

MOST_USES = 5
LIFETIME = 1800.0  # seconds


@dataclass(frozen=True)
class Place:
    """Where an answer goes: the person, and the message whose control they used, if any."""

    channel: str
    user: str
    ts: str
    thread_ts: str


class ResponseURLs:
    """The keys of the addresses that were issued."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def give(self, place: Place) -> str:
        """Return a new key for the place."""
        key = uuid.uuid4().hex
        with self._database.change() as connection:
            connection.execute(
                "INSERT INTO response_urls VALUES (?, ?, ?, ?, ?, 0, ?)",
                (key, place.channel, place.user, place.ts, place.thread_ts, time.time()),
            )
        return key

    def use(self, key: str) -> Place | None:
        """Count a use and return the place, or None if the key is unknown, old or used up."""
        with self._database.change() as connection:
            row = connection.execute(
                "UPDATE response_urls SET uses = uses + 1 WHERE key = ? AND made > ? AND uses < ?"
                " RETURNING channel, user, ts, thread_ts",
                (key, time.time() - LIFETIME, MOST_USES),
            ).fetchone()
        return Place(*row) if row else None

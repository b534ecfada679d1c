"""Events for the app, kept until they are acknowledged or given up."""

import json
from dataclasses import dataclass

from devstack.demo_slack.database import Database
from devstack.demo_slack.workspace import Json


@dataclass(frozen=True)
class Pending:
    """An event to deliver. `attempt` counts failures; `reason` says why the last one failed."""

    id: int
    path: str
    body: bytes
    attempt: int
    reason: str


class Outbox:
    """Events by their due time, in unix seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, path: str, payload: Json, due: float) -> None:
        """Queue an event for the app."""
        with self._database.change() as connection:
            connection.execute(
                "INSERT INTO outbox (path, body, attempt, reason, due) VALUES (?, ?, 0, '', ?)",
                (path, json.dumps(payload), due),
            )

    def due(self, now: float) -> list[Pending]:
        """Return the events that are due, oldest first."""
        rows = self._database.rows("SELECT * FROM outbox WHERE due <= ? ORDER BY id", now)
        return [
            Pending(row["id"], row["path"], row["body"].encode(), row["attempt"], row["reason"])
            for row in rows
        ]

    def next_due(self) -> float | None:
        """Return when the next event is due, or None if no event waits."""
        due: float | None = self._database.rows("SELECT min(due) AS due FROM outbox")[0]["due"]
        return due

    def postpone(self, event_id: int, reason: str, due: float) -> None:
        """Count a failed delivery and set the time of the next one."""
        with self._database.change() as connection:
            connection.execute(
                "UPDATE outbox SET attempt = attempt + 1, reason = ?, due = ? WHERE id = ?",
                (reason, due, event_id),
            )

    def settle(self, event_id: int) -> None:
        """Delete an event that was acknowledged or given up."""
        with self._database.change() as connection:
            connection.execute("DELETE FROM outbox WHERE id = ?", (event_id,))

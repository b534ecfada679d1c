"""What the demo Slack remembers: teams, people, channels, messages, and events still to deliver.

Everything is in one SQLite file, so that neither a restart nor a kill loses a message or an event;
without a path it lives in memory. Every method may be called from any thread.
"""

import json
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS teams (id TEXT PRIMARY KEY, name TEXT, domain TEXT);
CREATE TABLE IF NOT EXISTS installs (
    token TEXT PRIMARY KEY, team_id TEXT, app_id TEXT, bot_user_id TEXT, bot_id TEXT,
    active INTEGER DEFAULT 1);
CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, team_id TEXT, body TEXT);
CREATE TABLE IF NOT EXISTS channels (id TEXT PRIMARY KEY, team_id TEXT, body TEXT);
CREATE TABLE IF NOT EXISTS messages (
    channel TEXT, ts TEXT, thread_ts TEXT, visible_to TEXT, body TEXT, PRIMARY KEY (channel, ts));
CREATE TABLE IF NOT EXISTS reactions (
    channel TEXT, ts TEXT, name TEXT, user TEXT, PRIMARY KEY (channel, ts, name, user));
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY, path TEXT, body TEXT, attempt INTEGER, reason TEXT, due REAL);
CREATE TABLE IF NOT EXISTS codes (code TEXT PRIMARY KEY, team_id TEXT);
CREATE TABLE IF NOT EXISTS response_urls (
    key TEXT PRIMARY KEY, channel TEXT, user TEXT, ts TEXT, thread_ts TEXT, uses INTEGER,
    made REAL);
"""

_TABLES = re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", _SCHEMA)


@dataclass(frozen=True)
class Install:
    """An installation of the app in a team: who the bearer of a bot token is."""

    token: str
    team_id: str
    app_id: str
    bot_user_id: str
    bot_id: str
    active: bool


@dataclass(frozen=True)
class Pending:
    """An event that Slack still owes the app; `attempt` counts the deliveries that failed."""

    id: int
    path: str
    body: bytes
    attempt: int
    reason: str


class Workspace:
    """The state of the demo Slack."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            path or ":memory:", check_same_thread=False, isolation_level=None
        )
        self._connection.row_factory = sqlite3.Row
        self._connection.executescript("PRAGMA journal_mode=WAL;" + _SCHEMA)
        self._last_ts = 0
        self._boot = uuid.uuid4().hex[:8]
        self._changes = 0

    def close(self) -> None:
        """Close the file; nothing may be called afterwards."""
        with self._lock:
            self._connection.close()

    @property
    def version(self) -> str:
        """A text that is another one after every change."""
        return f"{self._boot}.{self._changes}"

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
            self._changes += 1

    def _rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    # --- who and where ---------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Tell whether nothing was ever added."""
        return not self._rows("SELECT 1 FROM teams LIMIT 1")

    def clear(self) -> None:
        """Forget everything."""
        with self._change() as connection:
            for table in _TABLES:
                connection.execute(f"DELETE FROM {table}")

    def add_team(self, team_id: str, name: str) -> None:
        """Add a team (a Slack workspace)."""
        domain = name.lower().replace(" ", "-")
        with self._change() as connection:
            connection.execute("REPLACE INTO teams VALUES (?, ?, ?)", (team_id, name, domain))

    def team(self, team_id: str) -> Json:
        """Return a team's id, name and domain."""
        return dict(self._rows("SELECT * FROM teams WHERE id = ?", team_id)[0])

    def install(self, team_id: str, token: str, app_id: str, bot_user_id: str, bot_id: str) -> None:
        """Install the app in the team: from now on the token is the bot's."""
        with self._change() as connection:
            connection.execute(
                "REPLACE INTO installs VALUES (?, ?, ?, ?, ?, 1)",
                (token, team_id, app_id, bot_user_id, bot_id),
            )

    def uninstall(self, token: str) -> None:
        """End the installation: its token is answered `account_inactive` from now on."""
        with self._change() as connection:
            connection.execute("UPDATE installs SET active = 0 WHERE token = ?", (token,))

    def install_of_token(self, token: str) -> Install | None:
        """Return the installation whose bot token this is."""
        rows = self._rows("SELECT * FROM installs WHERE token = ?", token)
        return _install(rows[0]) if rows else None

    def install_of_team(self, team_id: str) -> Install | None:
        """Return the active installation of the app in the team."""
        rows = self._rows("SELECT * FROM installs WHERE team_id = ? AND active", team_id)
        return _install(rows[0]) if rows else None

    def add_user(self, team_id: str, user_id: str, name: str, **fields: Any) -> None:
        """Add a person or bot; `fields` are those of Slack's user object (`profile` is merged)."""
        profile = {"real_name": name, "display_name": name, **fields.pop("profile", {})}
        flags = ("is_bot", "is_restricted", "is_ultra_restricted", "is_stranger", "is_admin")
        body = {
            "id": user_id,
            "team_id": team_id,
            "name": name.lower().replace(" ", "."),
            "real_name": name,
            "deleted": False,
            "tz": "Etc/UTC",
            **dict.fromkeys(flags, False),
            **fields,
            "profile": profile,
        }
        with self._change() as connection:
            connection.execute(
                "REPLACE INTO users VALUES (?, ?, ?)", (user_id, team_id, json.dumps(body))
            )

    def user(self, user_id: str) -> Json | None:
        """Return Slack's user object."""
        rows = self._rows("SELECT body FROM users WHERE id = ?", user_id)
        return json.loads(rows[0]["body"]) if rows else None

    def users(self) -> list[Json]:
        """Return everybody, people and bots, in the order they were added."""
        return [json.loads(row["body"]) for row in self._rows("SELECT body FROM users")]

    def add_channel(self, team_id: str, channel_id: str, name: str, **fields: Any) -> None:
        """Add a channel; `fields` are those of Slack's conversation object."""
        body = {
            "id": channel_id,
            "name": name,
            "is_channel": True,
            "is_private": False,
            "is_archived": False,
            "is_ext_shared": False,
            "is_member": True,
            "context_team_id": team_id,
            **fields,
        }
        with self._change() as connection:
            connection.execute(
                "REPLACE INTO channels VALUES (?, ?, ?)", (channel_id, team_id, json.dumps(body))
            )

    def channel(self, channel_id: str) -> Json | None:
        """Return Slack's conversation object."""
        rows = self._rows("SELECT body FROM channels WHERE id = ?", channel_id)
        return json.loads(rows[0]["body"]) if rows else None

    def channels(self) -> list[Json]:
        """Return all channels in the order they were added."""
        return [json.loads(row["body"]) for row in self._rows("SELECT body FROM channels")]

    # --- messages --------------------------------------------------------------------------------

    def _next_ts(self) -> str:
        self._last_ts = max(int(time.time() * 1_000_000), self._last_ts + 1)
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    def add_message(
        self, channel: str, message: Json, visible_to: str | None = None, ts: str | None = None
    ) -> Json:
        """Store a message and return it with its `ts`; only `visible_to` sees an ephemeral one."""
        with self._change() as connection:
            message = {"type": "message", **message, "ts": ts or self._next_ts()}
            thread = message.get("thread_ts") or message["ts"]
            connection.execute(
                "INSERT INTO messages VALUES (?, ?, ?, ?, ?)",
                (channel, message["ts"], thread, visible_to, json.dumps(message)),
            )
        return message

    def change_message(self, channel: str, ts: str, fields: Json) -> Json:
        """Merge the fields into the message and return it."""
        with self._change() as connection:
            message = self.message(channel, ts)
            if message is None:
                raise LookupError(f"{channel}/{ts}")
            message |= fields
            connection.execute(
                "UPDATE messages SET body = ? WHERE channel = ? AND ts = ?",
                (json.dumps(message), channel, ts),
            )
        return message

    def delete_message(self, channel: str, ts: str) -> None:
        """Forget a message."""
        with self._change() as connection:
            connection.execute("DELETE FROM messages WHERE channel = ? AND ts = ?", (channel, ts))

    def message(self, channel: str, ts: str) -> Json | None:
        """Return one message, ephemeral or not."""
        rows = self._rows("SELECT body FROM messages WHERE channel = ? AND ts = ?", channel, ts)
        return json.loads(rows[0]["body"]) if rows else None

    def thread(self, channel: str, thread_ts: str) -> list[Json]:
        """Return the root and its replies, oldest first, without what only one person sees."""
        rows = self._rows(
            "SELECT body FROM messages WHERE channel = ? AND thread_ts = ? AND visible_to IS NULL"
            " ORDER BY ts",
            channel,
            thread_ts,
        )
        return [json.loads(row["body"]) for row in rows]

    def messages(self, channel: str, seen_by: str | None = None) -> list[Json]:
        """Return all messages of a channel, oldest first, with those only `seen_by` sees."""
        rows = self._rows(
            "SELECT body, visible_to FROM messages WHERE channel = ?"
            " AND (visible_to IS NULL OR visible_to = ?) ORDER BY ts",
            channel,
            seen_by,
        )
        return [json.loads(row["body"]) | {"visible_to": row["visible_to"]} for row in rows]

    def ephemeral_messages(self, channel: str) -> list[Json]:
        """Return the messages that only one person sees, each with its `visible_to`."""
        rows = self._rows(
            "SELECT body, visible_to FROM messages WHERE channel = ?"
            " AND visible_to IS NOT NULL ORDER BY ts",
            channel,
        )
        return [json.loads(row["body"]) | {"visible_to": row["visible_to"]} for row in rows]

    def add_reaction(self, channel: str, ts: str, name: str, user: str) -> bool:
        """Add a reaction; tell whether it was new."""
        with self._change() as connection:
            cursor = connection.execute(
                "INSERT OR IGNORE INTO reactions VALUES (?, ?, ?, ?)", (channel, ts, name, user)
            )
            return cursor.rowcount == 1

    def remove_reaction(self, channel: str, ts: str, name: str, user: str) -> bool:
        """Remove a reaction; tell whether it was there."""
        with self._change() as connection:
            cursor = connection.execute(
                "DELETE FROM reactions WHERE channel = ? AND ts = ? AND name = ? AND user = ?",
                (channel, ts, name, user),
            )
            return cursor.rowcount == 1

    def reactions(self, channel: str, ts: str) -> list[Json]:
        """Return a message's reactions as Slack lists them: name, users, count."""
        found: dict[str, list[str]] = {}
        for row in self._rows(
            "SELECT name, user FROM reactions WHERE channel = ? AND ts = ? ORDER BY rowid",
            channel,
            ts,
        ):
            found.setdefault(row["name"], []).append(row["user"])
        return [
            {"name": name, "users": users, "count": len(users)} for name, users in found.items()
        ]

    # --- events still to deliver -----------------------------------------------------------------

    def owe(self, path: str, payload: Json, due: float) -> None:
        """Remember an event until the app has acknowledged it or all retries are used up."""
        with self._change() as connection:
            connection.execute(
                "INSERT INTO outbox (path, body, attempt, reason, due) VALUES (?, ?, 0, '', ?)",
                (path, json.dumps(payload), due),
            )

    def due_events(self, now: float) -> list[Pending]:
        """Return the events whose time has come."""
        rows = self._rows("SELECT * FROM outbox WHERE due <= ? ORDER BY id", now)
        return [
            Pending(row["id"], row["path"], row["body"].encode(), row["attempt"], row["reason"])
            for row in rows
        ]

    def next_due(self) -> float | None:
        """Return when the next event is due, in unix seconds."""
        due: float | None = self._rows("SELECT min(due) AS due FROM outbox")[0]["due"]
        return due

    def postpone(self, event_id: int, reason: str, due: float) -> None:
        """Count a failed delivery and say when the next is due."""
        with self._change() as connection:
            connection.execute(
                "UPDATE outbox SET attempt = attempt + 1, reason = ?, due = ? WHERE id = ?",
                (reason, due, event_id),
            )

    def settle(self, event_id: int) -> None:
        """Forget an event: acknowledged, or given up."""
        with self._change() as connection:
            connection.execute("DELETE FROM outbox WHERE id = ?", (event_id,))

    # --- response URLs of interactions -----------------------------------------------------------

    def add_response_url(self, key: str, channel: str, user: str, ts: str, thread_ts: str) -> None:
        """Remember where an answer to an interaction belongs."""
        with self._change() as connection:
            connection.execute(
                "INSERT INTO response_urls VALUES (?, ?, ?, ?, ?, 0, ?)",
                (key, channel, user, ts, thread_ts, time.time()),
            )

    def use_response_url(
        self, key: str, made_after: float, most: int
    ) -> tuple[str, str, str, str] | None:
        """Count a use and return channel, user, ts and thread; None when it is no longer valid."""
        with self._change() as connection:
            row = connection.execute(
                "UPDATE response_urls SET uses = uses + 1 WHERE key = ? AND made > ? AND uses < ?"
                " RETURNING channel, user, ts, thread_ts",
                (key, made_after, most),
            ).fetchone()
        return tuple(row) if row else None

    # --- installing by OAuth ---------------------------------------------------------------------

    def new_code(self, team_id: str) -> str:
        """Return an authorization code of an installation in the team."""
        code = uuid.uuid4().hex
        with self._change() as connection:
            connection.execute("INSERT INTO codes VALUES (?, ?)", (code, team_id))
        return code

    def redeem_code(self, code: str) -> str | None:
        """Return the team of an authorization code, once."""
        with self._change() as connection:
            row = connection.execute("SELECT team_id FROM codes WHERE code = ?", (code,)).fetchone()
            connection.execute("DELETE FROM codes WHERE code = ?", (code,))
        return row["team_id"] if row else None


def _install(row: sqlite3.Row) -> Install:
    return Install(
        row["token"],
        row["team_id"],
        row["app_id"],
        row["bot_user_id"],
        row["bot_id"],
        bool(row["active"]),
    )


def furnish(workspace: Workspace, bot_name: str, token: str = "xoxb-demo") -> None:
    """Add the demo's team: two members, a guest, the bot and two channels."""
    workspace.add_team("T1", "Acme")
    owner = {"is_admin": True, "profile": {"email": "olivia@acme.example"}}
    workspace.add_user("T1", "U1", "Olivia Owner", **owner)
    workspace.add_user("T1", "U2", "Carl Colleague", profile={"email": "carl@acme.example"})
    guest = {"is_restricted": True, "profile": {"email": "gwen@guests.example"}}
    workspace.add_user("T1", "U3", "Gwen Guest", **guest)
    workspace.add_user("T1", "UBOT", bot_name, is_bot=True, profile={"bot_id": "B1"})
    workspace.add_channel("T1", "C1", "general", is_general=True)
    workspace.add_channel("T1", "C2", "engineering")
    workspace.install("T1", token, "A1", "UBOT", "B1")

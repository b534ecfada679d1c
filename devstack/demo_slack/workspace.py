"""The contents of the demo Slack: teams, people, channels, messages and reactions."""

import json
import time
from typing import Any

from devstack.demo_slack.database import Database

Json = dict[str, Any]

_FLAGS = ("is_bot", "is_restricted", "is_ultra_restricted", "is_stranger", "is_admin")


class Workspace:
    """Stores and returns people, channels and messages as objects of Slack's Web API."""

    def __init__(self, database: Database) -> None:
        self.database = self._database = database
        self._last_ts = 0

    # --- who and where ---------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Return whether nothing was added yet."""
        return not self._database.rows("SELECT 1 FROM teams LIMIT 1")

    def add_team(self, team_id: str, name: str) -> None:
        """Add a team (what people call a Slack workspace)."""
        domain = name.lower().replace(" ", "-")
        with self._database.change() as connection:
            connection.execute("REPLACE INTO teams VALUES (?, ?, ?)", (team_id, name, domain))

    def team(self, team_id: str) -> Json:
        """Return a team's id, name and domain."""
        return dict(self._database.rows("SELECT * FROM teams WHERE id = ?", team_id)[0])

    def add_user(self, team_id: str, user_id: str, name: str, **fields: Any) -> None:
        """Add a person or bot; `fields` are those of Slack's user object (`profile` is merged)."""
        profile = {"real_name": name, "display_name": name, **fields.pop("profile", {})}
        body = {
            "id": user_id,
            "team_id": team_id,
            "name": name.lower().replace(" ", "."),
            "real_name": name,
            "deleted": False,
            "tz": "Etc/UTC",
            **dict.fromkeys(_FLAGS, False),
            **fields,
            "profile": profile,
        }
        self._put("users", team_id, body)

    def user(self, user_id: str) -> Json | None:
        """Return Slack's user object."""
        return self._get("users", user_id)

    def users(self) -> list[Json]:
        """Return everybody, people and bots, in the order in which they were added."""
        return self._all("users")

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
        self._put("channels", team_id, body)

    def direct_channel(self, user_id: str) -> Json | None:
        """Return the bot's conversation with a person, creating it if needed."""
        user = self.user(user_id)
        if user is None or user["is_bot"]:
            return None
        channel_id = f"D{user_id}"
        if self.channel(channel_id) is None:
            fields = {"is_channel": False, "is_im": True, "user": user_id}
            self.add_channel(user["team_id"], channel_id, f"bot and {user['name']}", **fields)
        return self.channel(channel_id)

    def channel(self, channel_id: str) -> Json | None:
        """Return Slack's conversation object."""
        return self._get("channels", channel_id)

    def channels(self) -> list[Json]:
        """Return all channels in the order in which they were added."""
        return self._all("channels")

    def _put(self, table: str, team_id: str, body: Json) -> None:
        with self._database.change() as connection:
            connection.execute(
                f"REPLACE INTO {table} VALUES (?, ?, ?)", (body["id"], team_id, json.dumps(body))
            )

    def _get(self, table: str, key: str) -> Json | None:
        rows = self._database.rows(f"SELECT body FROM {table} WHERE id = ?", key)
        return json.loads(rows[0]["body"]) if rows else None

    def _all(self, table: str) -> list[Json]:
        rows = self._database.rows(f"SELECT body FROM {table} ORDER BY rowid")
        return [json.loads(row["body"]) for row in rows]

    # --- messages --------------------------------------------------------------------------------

    def add_message(
        self, channel: str, message: Json, visible_to: str | None = None, ts: str | None = None
    ) -> Json:
        """Store a message and return it with its `ts`. With `visible_to` it is ephemeral."""
        with self._database.change() as connection:
            message = {"type": "message", **message, "ts": ts or self._next_ts()}
            thread = message.get("thread_ts") or message["ts"]
            connection.execute(
                "INSERT INTO messages VALUES (?, ?, ?, ?, ?)",
                (channel, message["ts"], thread, visible_to, json.dumps(message)),
            )
        return message

    def _next_ts(self) -> str:
        """Return the time in Slack's format, later than any earlier one."""
        self._last_ts = max(int(time.time() * 1_000_000), self._last_ts + 1)
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    def change_message(self, channel: str, ts: str, fields: Json) -> Json:
        """Merge the fields into the message and return it. Raise `LookupError` if it is gone."""
        with self._database.change() as connection:
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
        """Delete a message."""
        with self._database.change() as connection:
            connection.execute("DELETE FROM messages WHERE channel = ? AND ts = ?", (channel, ts))

    def message(self, channel: str, ts: str) -> Json | None:
        """Return one message, ephemeral or not."""
        rows = self._database.rows(
            "SELECT body FROM messages WHERE channel = ? AND ts = ?", channel, ts
        )
        return json.loads(rows[0]["body"]) if rows else None

    def thread(self, channel: str, thread_ts: str) -> list[Json]:
        """Return the root and its replies, oldest first, without ephemeral messages."""
        rows = self._database.rows(
            "SELECT body FROM messages WHERE channel = ? AND thread_ts = ? AND visible_to IS NULL"
            " ORDER BY ts",
            channel,
            thread_ts,
        )
        return [json.loads(row["body"]) for row in rows]

    def messages(self, channel: str) -> list[Json]:
        """Return the messages that everyone sees, oldest first."""
        rows = self._database.rows(
            "SELECT body FROM messages WHERE channel = ? AND visible_to IS NULL ORDER BY ts",
            channel,
        )
        return [json.loads(row["body"]) for row in rows]

    def ephemeral_messages(self, channel: str) -> list[Json]:
        """Return the ephemeral messages, oldest first, each with its `visible_to`."""
        rows = self._database.rows(
            "SELECT body, visible_to FROM messages"
            " WHERE channel = ? AND visible_to IS NOT NULL ORDER BY ts",
            channel,
        )
        return [json.loads(row["body"]) | {"visible_to": row["visible_to"]} for row in rows]

    def seen_by(self, user: str, channel: str) -> list[Json]:
        """Return what the person sees in the channel, oldest first, with the reactions."""
        mine = [one for one in self.ephemeral_messages(channel) if one["visible_to"] == user]
        seen = sorted(self.messages(channel) + mine, key=lambda message: message["ts"])
        return [message | {"reactions": self.reactions(channel, message["ts"])} for message in seen]

    # --- agent sessions --------------------------------------------------------------------------

    def put_session(self, channel: str, thread_ts: str, session: Json) -> None:
        """Store the agent session of a thread."""
        with self._database.change() as connection:
            connection.execute(
                "REPLACE INTO sessions VALUES (?, ?, ?)", (channel, thread_ts, json.dumps(session))
            )

    def session(self, channel: str, thread_ts: str) -> Json | None:
        """Return the agent session of a thread, or None."""
        return self.sessions(channel).get(thread_ts)

    def sessions(self, channel: str) -> dict[str, Json]:
        """Return the agent sessions of a channel, by thread."""
        rows = self._database.rows("SELECT * FROM sessions WHERE channel = ?", channel)
        return {row["thread_ts"]: json.loads(row["body"]) for row in rows}

    # --- reactions -------------------------------------------------------------------------------

    def add_reaction(self, channel: str, ts: str, name: str, user: str) -> bool:
        """Add a reaction; return whether it was new."""
        with self._database.change() as connection:
            cursor = connection.execute(
                "INSERT OR IGNORE INTO reactions VALUES (?, ?, ?, ?)", (channel, ts, name, user)
            )
            return cursor.rowcount == 1

    def remove_reaction(self, channel: str, ts: str, name: str, user: str) -> bool:
        """Remove a reaction; return whether it was there."""
        with self._database.change() as connection:
            cursor = connection.execute(
                "DELETE FROM reactions WHERE channel = ? AND ts = ? AND name = ? AND user = ?",
                (channel, ts, name, user),
            )
            return cursor.rowcount == 1

    def reactions(self, channel: str, ts: str) -> list[Json]:
        """Return a message's reactions as Slack lists them: name, users, count."""
        found: dict[str, list[str]] = {}
        for row in self._database.rows(
            "SELECT name, user FROM reactions WHERE channel = ? AND ts = ? ORDER BY rowid",
            channel,
            ts,
        ):
            found.setdefault(row["name"], []).append(row["user"])
        return [
            {"name": name, "users": users, "count": len(users)} for name, users in found.items()
        ]

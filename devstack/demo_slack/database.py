"""The demo Slack's state in one SQLite file, or in memory. Any thread can use it."""

import re
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS teams (id TEXT PRIMARY KEY, name TEXT, domain TEXT);
CREATE TABLE IF NOT EXISTS installs (
    token TEXT PRIMARY KEY, team_id TEXT, app_id TEXT, bot_user_id TEXT, bot_id TEXT,
    active INTEGER DEFAULT 1);
CREATE TABLE IF NOT EXISTS refresh_tokens (token TEXT PRIMARY KEY, team_id TEXT);
CREATE TABLE IF NOT EXISTS expired (token TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS codes (code TEXT PRIMARY KEY, team_id TEXT);
CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, team_id TEXT, body TEXT);
CREATE TABLE IF NOT EXISTS channels (id TEXT PRIMARY KEY, team_id TEXT, body TEXT);
CREATE TABLE IF NOT EXISTS messages (
    channel TEXT, ts TEXT, thread_ts TEXT, visible_to TEXT, body TEXT, PRIMARY KEY (channel, ts));
CREATE TABLE IF NOT EXISTS reactions (
    channel TEXT, ts TEXT, name TEXT, user TEXT, PRIMARY KEY (channel, ts, name, user));
CREATE TABLE IF NOT EXISTS sessions (
    channel TEXT, thread_ts TEXT, body TEXT, PRIMARY KEY (channel, thread_ts));
CREATE TABLE IF NOT EXISTS files (id TEXT PRIMARY KEY, name TEXT, size INTEGER, content BLOB);
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY, path TEXT, body TEXT, attempt INTEGER, reason TEXT, due REAL);
CREATE TABLE IF NOT EXISTS response_urls (
    key TEXT PRIMARY KEY, channel TEXT, user TEXT, ts TEXT, thread_ts TEXT, uses INTEGER,
    made REAL);
"""
_TABLES = re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", _SCHEMA)


class Database:
    """The tables, and a version that changes with every write."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            path or ":memory:", check_same_thread=False, isolation_level=None
        )
        self._connection.row_factory = sqlite3.Row
        self._connection.executescript("PRAGMA journal_mode=WAL;" + _SCHEMA)
        self._boot = uuid.uuid4().hex[:8]
        self._changes = 0

    @property
    def version(self) -> str:
        """A text that changes with every write."""
        return f"{self._boot}.{self._changes}"

    def close(self) -> None:
        """Close the file. The database must not be used afterwards."""
        with self._lock:
            self._connection.close()

    def clear(self) -> None:
        """Delete all rows."""
        with self.change() as connection:
            for table in _TABLES:
                connection.execute(f"DELETE FROM {table}")

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction that no other thread can run at the same time."""
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
            self._changes += 1

    def rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

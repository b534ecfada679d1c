"""Listen to Slack in Socket Mode: stay connected, and handle what arrives.

https://docs.slack.dev/apis/events-api/using-socket-mode/ describes the protocol. Slack replaces
each connection after some hours, and announces this shortly before. We open the next one while the
old one still works, so we miss nothing.
"""

import threading
import time
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, Full, Queue, SimpleQueue

import structlog
from django.db import close_old_connections, connections
from django.utils import timezone
from slack_sdk.socket_mode.request import SocketModeRequest

from slack_bot.socket_mode import backoff, metrics, reports
from slack_bot.socket_mode.connection import Connection
from slack_bot.socket_mode.opening import NotConnected, open_connection

log = structlog.get_logger(__name__)

AT_ONCE = 10
"""Envelopes handled at the same time. As many more can wait; then we stop reading from Slack."""
OLD_CONNECTION_LASTS = 60.0
"""Seconds for which a replaced connection is still read, unless Slack closes it earlier."""
STEADY_AFTER = 60.0
"""Seconds that a connection must last to reset the count of failures."""
GRACE = 10.0
"""Seconds to finish the envelopes in progress when the process stops."""
_ROUTINE = ("refresh_requested", "warning")
_REFUSALS = ("link_disabled", "too_many_websockets")


@dataclass(frozen=True)
class _Ended:
    """A connection that has to be replaced, and why."""

    connection: Connection
    reason: str


_Work = tuple[Connection, SocketModeRequest]


class Listener:
    """Keeps one connection to Slack. At most ten processes can listen at once."""

    def __init__(self, app_token: str, at_once: int = AT_ONCE) -> None:
        self._app_token = app_token
        self._news: SimpleQueue[_Ended | None] = SimpleQueue()
        self._work: Queue[_Work | None] = Queue(at_once)
        self._workers = [
            threading.Thread(target=self._handle_work, name=f"slack-envelopes-{n}", daemon=True)
            for n in range(at_once)
        ]
        self._current: Connection | None = None
        self._older: dict[Connection, float] = {}
        self._failures = 0
        self._connect_at = 0.0
        self._connected_at = 0.0
        self._connected_since: datetime | None = None
        self._problem = ""
        self._report = reports.Report()
        self._report_at = 0.0

    def stop(self) -> None:
        """Make `run` finish. A signal handler can call this."""
        self._news.put(None)

    def run(self) -> bool:
        """Listen until `stop` is called. Return whether everything begun was finished in time."""
        for worker in self._workers:
            worker.start()
        try:
            while self._take_turn():
                pass
        finally:
            is_finished = self._finish()
        return is_finished

    def _take_turn(self) -> bool:
        """Do what is due, and wait for the next news. Return False once `stop` was called."""
        now = time.monotonic()
        if self._current is None and now >= self._connect_at:
            self._connect()
        self._close_old(now)
        if now >= self._report_at:
            self._report_state(now)
        due = min([self._report_at, *self._older.values()])
        if self._current is None:
            due = min(due, self._connect_at)
        try:
            news = self._news.get(timeout=max(0.0, due - time.monotonic()))
        except Empty:
            return True
        if news is None:
            return False
        self._replace(news)
        return True

    def _connect(self) -> None:
        try:
            websocket = open_connection(self._app_token)
        except NotConnected as error:
            self._wait(str(error), is_refusal=error.is_refusal, retry_after=error.retry_after)
            return
        self._connected_at = time.monotonic()
        self._connected_since, self._problem = timezone.now(), ""
        self._current = Connection(
            websocket,
            lambda connection, request: self._work.put((connection, request)),
            lambda connection, reason: self._news.put(_Ended(connection, reason)),
        )
        metrics.CONNECTIONS.labels(outcome="connected").inc()
        metrics.CONNECTED.set(1)
        log.info("connected to Slack")
        self._report_at = 0.0

    def _wait(
        self, problem: str, *, is_refusal: bool = False, retry_after: int | None = None
    ) -> None:
        """Set the time of the next attempt after a failure."""
        delay = backoff.delay(self._failures, is_refusal=is_refusal, retry_after=retry_after)
        self._failures += 1
        self._connect_at = time.monotonic() + delay
        self._problem = problem
        self._report_at = 0.0
        metrics.CONNECTIONS.labels(outcome="refused" if is_refusal else "failed").inc()
        say = log.error if is_refusal else log.warning
        say("not connected to Slack", problem=problem, seconds=round(delay, 1))

    def _replace(self, ended: _Ended) -> None:
        """Prepare for another connection after the current one."""
        metrics.ENDS.labels(reason=ended.reason).inc()
        if ended.connection is not self._current:
            return
        now = time.monotonic()
        self._current, self._connected_since = None, None
        self._older[ended.connection] = now + OLD_CONNECTION_LASTS
        metrics.CONNECTED.set(0)
        if ended.reason in _ROUTINE:
            log.info("Slack replaces the connection", reason=ended.reason)
            self._failures, self._connect_at = 0, now
            return
        if now - self._connected_at > STEADY_AFTER:
            self._failures = 0
        self._wait(ended.reason, is_refusal=ended.reason in _REFUSALS)

    def _close_old(self, now: float) -> None:
        for connection, ends in list(self._older.items()):
            if now >= ends:
                connection.close()
            if now >= ends or not connection.is_open:
                del self._older[connection]

    def _report_state(self, now: float) -> None:
        self._report.write(self._connected_since, self._problem)
        self._report_at = now + reports.EVERY

    def _handle_work(self) -> None:
        try:
            while (work := self._work.get()) is not None:
                close_old_connections()
                connection, request = work
                connection.handle(request)
        finally:
            connections.close_all()

    def _finish(self) -> bool:
        """Finish and acknowledge what was begun, and close all. Return whether it was in time."""
        open_ones = [*self._older, *([self._current] if self._current else [])]
        for connection in open_ones:
            connection.take_no_more()
        ends = time.monotonic() + GRACE
        try:
            for _ in self._workers:
                self._work.put(None, timeout=max(0.0, ends - time.monotonic()))
        except Full:
            log.warning("not every envelope was finished; Slack delivers the events again")
        for worker in self._workers:
            worker.join(max(0.0, ends - time.monotonic()))
        for connection in open_ones:
            connection.close()
        metrics.CONNECTED.set(0)
        self._report.withdraw()
        connections.close_all()
        return not any(worker.is_alive() for worker in self._workers)

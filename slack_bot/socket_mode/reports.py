"""What a listening process reports about itself, for the setup page and the doctor."""

import os
import socket
import uuid
from datetime import datetime, timedelta

import structlog
from django.db import Error as StoreError
from django.db import close_old_connections
from django.utils import timezone

from slack_bot.models import SEEN_WITHIN, SlackSocket

log = structlog.get_logger(__name__)

EVERY = 15.0  # seconds
_FORGOTTEN_AFTER = timedelta(days=1)


class Report:
    """The row in which this process reports its state. Database errors are only logged."""

    def __init__(self) -> None:
        self._id = uuid.uuid4()
        self._process = f"{socket.gethostname()}:{os.getpid()}"[:200]

    def write(self, connected_since: datetime | None, problem: str) -> None:
        """Report whether the process is connected, and if not, why."""
        now = timezone.now()
        try:
            close_old_connections()
            SlackSocket.objects.update_or_create(
                pk=self._id,
                defaults={
                    "process": self._process,
                    "seen_at": now,
                    "connected_since": connected_since,
                    "problem": problem[:100],
                },
            )
            SlackSocket.objects.filter(seen_at__lt=now - _FORGOTTEN_AFTER).delete()
        except StoreError as error:
            log.warning("the state of the socket was not reported", error=type(error).__name__)

    def withdraw(self) -> None:
        """Delete the row when the process stops."""
        try:
            SlackSocket.objects.filter(pk=self._id).delete()
        except StoreError as error:
            log.warning("the socket's report was not deleted", error=type(error).__name__)


def listening(now: datetime) -> list[SlackSocket]:
    """Return the processes that reported lately, connected ones first."""
    seen = SlackSocket.objects.filter(seen_at__gte=now - SEEN_WITHIN)
    return sorted(seen, key=lambda each: (each.connected_since is None, each.process))

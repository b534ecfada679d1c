"""Note what arrives from Slack, at most once a minute, for the setup page."""

import time

import structlog
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from slack_bot.models import SlackArrival

log = structlog.get_logger(__name__)

_EVERY = 60.0  # seconds
_noted: dict[tuple[str, str], float] = {}


def note(way: str, kind: str) -> None:
    """Note that something of this kind arrived this way now. A failure only costs the note."""
    now = time.monotonic()
    if now - _noted.get((way, kind), -_EVERY) < _EVERY:
        return
    _noted[way, kind] = now
    try:
        SlackArrival.objects.update_or_create(
            way=way, kind=kind[:20], defaults={"at": timezone.now()}
        )
    except (DatabaseError, InterfaceError) as error:
        log.warning("what came from Slack was not noted", error=type(error).__name__)


def forget_notes() -> None:
    """Note the next arrival of every kind, however long ago the last one was."""
    _noted.clear()

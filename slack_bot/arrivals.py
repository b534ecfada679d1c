"""Record for the setup page when something last arrived from Slack, at most once a minute."""

import time

import structlog
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from slack_bot.models import SlackArrival

log = structlog.get_logger(__name__)

_EVERY = 60.0  # seconds
_noted: dict[tuple[str, str], float] = {}


def note(way: str, kind: str) -> None:
    """Record that something of this kind arrived this way now. Only log a failure to do so."""
    now = time.monotonic()
    if now - _noted.get((way, kind), -_EVERY) < _EVERY:
        return
    _noted[way, kind] = now
    try:
        SlackArrival.objects.update_or_create(
            way=way, kind=kind[:20], defaults={"at": timezone.now()}
        )
    except (DatabaseError, InterfaceError) as error:
        log.warning("an arrival from Slack was not recorded", error=type(error).__name__)


def forget_notes() -> None:
    """Record the next arrival of every kind, even within a minute of the last one."""
    _noted.clear()

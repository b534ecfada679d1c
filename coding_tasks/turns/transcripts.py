"""The transcript of a run: kept in rows when its turn ends, and read from the exchange before."""

import json
from collections.abc import Iterable

from django.db import transaction

from coding_tasks.agents.events import Event, from_json, to_json
from coding_tasks.agents.progress import Progress
from coding_tasks.models import RunEvent, TaskRun
from coding_tasks.storable import storable
from coding_tasks.turns.shared_exchange import shared_exchange

MOST_EVENTS = 5_000
_QUIET = frozenset({"session", "tokens"})
"""Events that tell a person nothing."""
_STEPS = tuple(f'{{"type": "{kind}",'.encode() for kind in ("command", "edit", "tool"))
"""How the lines of steps begin, so that a long transcript need not be parsed every few seconds."""


def keep(run: TaskRun, lines: Iterable[bytes]) -> None:
    """Replace the rows of a run by what the agent worker wrote. Leaves out what is no event."""
    rows = [
        RunEvent(run=run, number=number, event=event) for number, event in enumerate(_events(lines))
    ]
    with transaction.atomic():
        RunEvent.objects.filter(run=run).delete()
        RunEvent.objects.bulk_create(rows)


def transcript_of(run: TaskRun) -> list[tuple[str, str]]:
    """Return the steps of a run as pairs: the kind of step, and what it was."""
    return [(event.kind, _words(event)) for event in events_of(run) if event.kind not in _QUIET]


def events_of(run: TaskRun) -> list[Event]:
    """Return what the agent reported in a run: from its rows, or before that from the exchange."""
    values: Iterable[object] = RunEvent.objects.filter(run=run).values_list("event", flat=True)
    if run.state not in TaskRun.FINAL and not values:
        attempt = shared_exchange().latest(str(run.pk))
        values = _events(attempt.event_lines()) if attempt else []
    return [event for value in values if (event := from_json(value))]


def latest_step(run: TaskRun) -> tuple[int, str]:
    """Return how many steps an agent at work has taken, and what the latest one does."""
    attempt = shared_exchange().latest(str(run.pk))
    lines = attempt.event_lines() if attempt else []
    steps = [line for line in lines if line.startswith(_STEPS)]
    progress = Progress()
    for event in _events(steps[-1:]):
        if (step := from_json(event)) is not None:
            progress.add(step)
    return len(steps), progress.last_action


def _events(lines: Iterable[bytes]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for line in lines:
        try:
            value = json.loads(storable(line.decode("utf-8", "replace")))
        except (ValueError, RecursionError):
            continue
        event = from_json(value)
        if event is not None:
            found.append(to_json(event))  # cleaned, without unknown fields
        if len(found) >= MOST_EVENTS:
            break
    return found


def _words(event: Event) -> str:
    texts = [value for value in vars(event).values() if isinstance(value, str) and value]
    return "\n".join(texts)

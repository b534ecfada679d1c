"""Read the output of programs that write our own events, one JSON object a line."""

from collections.abc import Sequence

from coding_tasks.agents.events import Event, from_json
from coding_tasks.agents.lines import json_object


class EventLines:
    """See `Parser`."""

    def events(self, line: bytes) -> Sequence[Event]:
        """Return the event of the line, or none."""
        event = from_json(json_object(line))
        return () if event is None else (event,)

    def end(self) -> Sequence[Event]:
        """Return nothing: the answer is an event like the others."""
        return ()

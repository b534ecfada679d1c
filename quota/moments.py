"""Times as text for people: one format, always with the zone."""

from datetime import datetime
from zoneinfo import ZoneInfo


def moment(instant: datetime, zone: str = "UTC", *, seconds: bool = False) -> str:
    """Return a time such as "1 Dec 2026 00:00 CET"."""
    local = instant.astimezone(ZoneInfo(zone))
    clock = f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"
    return f"{day(instant, zone)} {clock} {_name(local)}"


def day(instant: datetime, zone: str = "UTC") -> str:
    """Return the day of a time, such as "1 Dec 2026"."""
    return f"{instant.astimezone(ZoneInfo(zone)):%-d %b %Y}"


def _name(local: datetime) -> str:
    """Return the zone's abbreviation, or its offset if it has none."""
    name = f"{local:%Z}"
    return f"UTC{name}" if name.startswith(("+", "-")) else name

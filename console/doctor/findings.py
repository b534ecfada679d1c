"""What the doctor says: one finding per thing that was checked."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """The state of one thing, and what to do about it."""

    check: str
    level: Level
    message: str
    do: str = ""


def as_text(findings: Iterable[Finding]) -> str:
    """Return the findings for people: a line each, and below it what to do."""
    lines = []
    for one in findings:
        lines.append(f"{one.level:<8} {one.check:<18} {one.message}")
        if one.do:
            lines.append(f"{'':<27} → {one.do}")
    return "\n".join(lines)


def as_json(findings: Iterable[Finding]) -> str:
    """Return the findings for programs: a list of objects."""
    return json.dumps([asdict(one) for one in findings], indent=1, ensure_ascii=False)


def brief(error: BaseException) -> str:
    """Return an exception in one line, without what the driver adds below it."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"[:120].rstrip(": ")


def clock_finding(check: str, seconds: float) -> Finding:
    """Return the finding about a store's clock. `seconds` is how far it is ahead of ours."""
    if abs(seconds) <= MOST_CLOCK_DIFFERENCE:
        return Finding(check, "ok", f"its clock differs by {abs(seconds):.1f} s")
    return Finding(
        check,
        "warning",
        f"its clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} ours, so "
        "limits lift too early or too late",
        "Synchronise the clocks of all machines (chrony, systemd-timesyncd).",
    )


MOST_CLOCK_DIFFERENCE = 2.0
"""Seconds."""

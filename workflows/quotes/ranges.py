"""The range that 90 % of comparable runs stay within, by order statistics.

If a new run comes from the same source as the `n` runs before it, it is equally likely to fall into
any of the `n + 1` gaps between their sorted costs, below all of them or above all of them. So we
use the newest 9, 19, 29, … runs, and leave out one gap in ten: half of these at the top, rounded
down but at least one, and the others at the bottom. A new run then costs what was quoted with a
probability of exactly 90 %, whatever the distribution of costs is. With 9 to 18 runs the range has
no lower end, because the only gap to leave out is the one above all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

FEWEST = 9
"""With fewer runs there is no range."""
MOST = 199
"""How many runs are compared. Older ones say little about today's."""


@dataclass(frozen=True)
class Range:
    """What runs cost. `low` is None if there were too few for a lower end."""

    low: int | None
    median: int
    high: int
    runs: int


def range_of(costs: Sequence[int]) -> Range | None:
    """Return the range that nine of ten runs stay within, or None if there are too few.

    `costs` has the newest first.
    """
    left_out = (min(len(costs), MOST) + 1) // 10
    if not left_out:
        return None
    ordered = sorted(costs[: 10 * left_out - 1])
    above = max(left_out // 2, 1)
    below = left_out - above
    return Range(
        low=ordered[below - 1] if below else None,
        median=ordered[(len(ordered) - 1) // 2],
        high=ordered[-above],
        runs=len(ordered),
    )

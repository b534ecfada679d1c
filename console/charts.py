"""Charts that the browser draws: the numbers to draw, and the text to show for each.

The numbers are floats of credits. The texts are made from micro-credits, so that a tooltip never
shows a small amount as zero.
"""

from collections.abc import Iterable
from datetime import date
from typing import Any

from billing.credits import display
from quota.resources import MICRO


def chart(
    kind: str, unit: str, days: Iterable[date], datasets: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return a chart of amounts by day. `kind` is "line" or "bar"."""
    return {
        "kind": kind,
        "unit": unit,
        "days": [f"{day:%-d %b}" for day in days],
        "datasets": datasets,
    }


def dataset(label: str, amounts: Iterable[int | None], *, kind: str) -> dict[str, Any]:
    """Return a line or the bars of a chart, from micro-credits.

    `kind` is a style of `charts.js`.
    """
    amounts = list(amounts)
    return {
        "label": label,
        "kind": kind,
        "credits": [None if micro is None else micro / MICRO for micro in amounts],
        "shown": [display(micro) for micro in amounts],
    }

"""The rows of the tables that show who and what used most credits."""

from dataclasses import dataclass

from billing.reports.ranking import Ranked, Ranking
from console.usage.dimensions import Dimension, Label, labelled


@dataclass(frozen=True, slots=True)
class BreakdownRow:
    """One line of a breakdown table."""

    label: Label
    ranked: Ranked


def breakdown(ranking: Ranking, dimension: Dimension) -> list[BreakdownRow]:
    """Return the rows of a ranking by a dimension, with names."""
    labels = labelled(dimension, (row.key for row in ranking.top))
    return [BreakdownRow(labels[row.key], row) for row in ranking.top]

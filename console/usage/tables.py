"""All that an account used in a stretch of time, divided by one or two dimensions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from billing.models import Account
from billing.reports.apportionment import displayed, displayed_dollars, percents
from billing.reports.sums import NOTHING, Span, Sums, Used, cut
from console.csv_answer import AMOUNTS, amounts
from console.report_permissions import ORGANIZATION_USAGE, THREADS
from console.usage import dimensions
from console.usage.dimensions import CHANNELS, MODELS, PRODUCTS, PROJECTS, USERS, Dimension, Label

ROWS = 100
"""Rows of a page."""
_CHUNK = 500
_USAGE = (*ORGANIZATION_USAGE, "billing.view_usageevent")


def _days(keys: Sequence[date]) -> dict[date, Label]:
    return {key: Label(f"{key:%a %-d %b %Y}", values=(key.isoformat(),)) for key in keys}


DAYS = Dimension("Day (UTC)", "day", ("day",), _days)


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its title, its dimensions and the permissions that it needs."""

    title: str
    dimensions: tuple[Dimension, ...]
    permissions: tuple[str, ...]

    @property
    def is_by_day(self) -> bool:
        """Whether the rows are in the order of days, and not of amounts."""
        return self.dimensions[0] is DAYS


TABLES = {
    "users": Table("Users", (USERS,), _USAGE),
    "models": Table("Models", (MODELS,), _USAGE),
    "users-models": Table("Users and models", (USERS, MODELS), _USAGE),
    "channels": Table("Slack channels", (CHANNELS,), _USAGE),
    "threads": Table("Slack threads", (dimensions.THREADS,), (*_USAGE, *THREADS)),
    "projects": Table("Projects", (PROJECTS,), (*_USAGE, "projects.view_project")),
    "days": Table("Days", (DAYS, PRODUCTS), ORGANIZATION_USAGE),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line: its labels, what was used, and the rounded texts, which add up over all pages."""

    labels: tuple[Label, ...]
    used: Used
    shown: str
    dollars: str
    percent: int


class Contents:
    """Everything in a table. Names are looked up only for the rows that are shown."""

    def __init__(self, table: Table, account: Account, span: Span) -> None:
        """Read the sums from the ledger and its report."""
        self.table = table
        self._sums = _sums(table, account, span)
        order = sorted(
            self._sums.items(),
            key=(lambda item: (item[0][0], -item[1].credits_micro, str(item[0])))
            if table.is_by_day
            else (lambda item: (-item[1].credits_micro, str(item[0]))),
        )
        self.rows = order
        self.total = sum((used for _, used in order), NOTHING)

    def page(self, first: int) -> list[Row]:
        """Return a page of rows that begins with row number `first`."""
        amounts = [used.credits_micro for _, used in self.rows]
        texts = zip(displayed(amounts), displayed_dollars(amounts), percents(amounts), strict=True)
        shown = slice(first, first + ROWS)
        labels = self._labels([key for key, _ in self.rows[shown]])
        return [
            Row(label, used, *text)
            for label, (_, used), text in zip(
                labels, self.rows[shown], list(texts)[shown], strict=True
            )
        ]

    @property
    def header(self) -> list[str]:
        """The columns of the table as CSV."""
        named = [column for each in self.table.dimensions for column in each.columns]
        return [*named, *AMOUNTS]

    def lines(self) -> Iterator[list[Any]]:
        """Yield the rows of the table as CSV, with exact amounts."""
        for start in range(0, len(self.rows), _CHUNK):
            chunk = self.rows[start : start + _CHUNK]
            labels = self._labels([key for key, _ in chunk])
            for label, (_, used) in zip(labels, chunk, strict=True):
                values = [value for each in label for value in each.values]
                yield [*values, *amounts(used)]

    def _labels(self, keys: Sequence[tuple[Any, ...]]) -> list[tuple[Label, ...]]:
        known = [
            dimensions.labelled(dimension, (key[at] for key in keys))
            for at, dimension in enumerate(self.table.dimensions)
        ]
        return [tuple(known[at][part] for at, part in enumerate(key)) for key in keys]


def _sums(table: Table, account: Account, span: Span) -> dict[tuple[Any, ...], Used]:
    sums = Sums(account, span)
    if not table.is_by_day:
        return sums.by([span], *(each.expression for each in table.dimensions))
    days: dict[tuple[Any, ...], Used] = {}
    pieces = cut(span)
    for piece, products in zip(pieces, sums.each_by(pieces, "product"), strict=True):
        for product, used in products.items():
            key = (piece.start.date(), product)
            days[key] = days.get(key, NOTHING) + used
    return days

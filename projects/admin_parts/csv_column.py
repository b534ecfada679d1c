"""Columns of the admin's lists that have another value in a CSV file than on the page."""

from collections.abc import Callable
from typing import Any, TypeVar

Column = TypeVar("Column", bound=Callable[..., Any])


def in_csv(value: Callable[[Any], Any]) -> Callable[[Column], Column]:
    """Return a decorator for a column. `value` returns what a row has in the file."""

    def decorate(column: Column) -> Column:
        column.csv_value = value  # type: ignore[attr-defined]
        return column

    return decorate

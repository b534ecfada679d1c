"""Write a table as CSV to a file or to standard output."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from billing.csv_lines import csv_lines


def write(path: str | None, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table to a file, or to standard output if `path` is None. Raises `CommandError`."""
    if path is None:
        sys.stdout.writelines(csv_lines(header, rows))
        return
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            file.writelines(csv_lines(header, rows))
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error

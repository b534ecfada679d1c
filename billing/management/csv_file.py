"""Write a table as CSV to a file or to standard output."""

import csv
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import CommandError

_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def write(path: str | None, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table to a file, or to standard output if `path` is None. Raises `CommandError`.

    Callers of the gateway choose the names of models, users and traces. If a spreadsheet could take
    a text for a formula, it gets an apostrophe in front
    (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    if path is None:
        _write(sys.stdout, header, rows)
        return
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            _write(file, header, rows)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error


def _write(file: TextIO, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    writer = csv.writer(file)
    writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(value) for value in row])


def _cell(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}" if value.startswith(_BEGINS_A_FORMULA) else value

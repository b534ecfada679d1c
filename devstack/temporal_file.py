"""The file in which the development stack's Temporal server keeps workflows."""

import sqlite3
from contextlib import closing
from pathlib import Path

from devstack.settings import SettingsError, Stack

NAME = "temporal.sqlite3"


def reset_or_refuse_damaged(stack: Stack, reset: str) -> None:
    """Delete the file if `reset` is `temporal`. Raise `SettingsError` if the file is damaged.

    It is damaged if the power failed while the server created it. If its workflows are lost, the
    sweeps start open mentions again or end them.
    """
    file = stack.directory / NAME
    if reset == "temporal":
        for part in stack.directory.glob(f"{NAME}*"):
            part.unlink()
    elif reset:
        raise SettingsError(f"RESET={reset} is unknown; it can be temporal.")
    elif stack.starts_temporal and file.exists() and not _is_sound(file):
        raise SettingsError(
            f"{file} is damaged. make up RESET=temporal deletes it: workflows are lost, the"
            " credits are not, and open mentions are started again or ended."
        )


def _is_sound(file: Path) -> bool:
    """Return whether SQLite can read the file, and Temporal has finished creating it.

    A file that is locked or may not be read is left to Temporal, which says so.
    """
    try:
        with closing(sqlite3.connect(file)) as database:
            [[answer]] = database.execute("PRAGMA quick_check(1)")
            tables = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'namespaces'"
            has_namespaces = database.execute(tables).fetchone() is not None
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        return False
    return answer == "ok" and has_namespaces

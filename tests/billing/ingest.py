"""A process that books one batch and is killed meanwhile: `… -m tests.billing.ingest FILE MOMENT`.

FILE has a batch as JSON. At the MOMENT the process kills itself with SIGKILL: `before-insert`,
`before-commit`, `after-commit`, `before-redis` or `after-redis`.
"""

import os
import signal
import sys
from pathlib import Path

import django
from redis.client import Pipeline


def die(*_args: object, **_kwargs: object) -> None:
    """End as a machine does that loses power."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(batch: Path, moment: str) -> None:
    """Book the batch and die trying."""
    django.setup()
    from django.db import connections

    from billing import ledger
    from billing.batches import parse_json

    wrapper = type(connections["default"])
    commit, insert, execute = wrapper._commit, ledger.insert, Pipeline.execute
    inserted: list[bool] = []

    def insert_and_note(rows: object) -> None:
        if moment == "before-insert":
            die()
        insert(rows)
        inserted.append(True)

    def commit_and_die(self: object) -> None:
        if inserted and moment == "before-commit":
            die()
        commit(self)
        if inserted and moment == "after-commit":
            die()

    def write_and_die(self: Pipeline) -> None:
        if moment == "before-redis":
            die()
        execute(self)
        if moment == "after-redis":
            die()

    ledger.insert = insert_and_note
    wrapper._commit = commit_and_die
    Pipeline.execute = write_and_die
    ledger.book(parse_json(batch.read_text()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

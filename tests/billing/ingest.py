"""Book batches in processes that are killed meanwhile: `… -m tests.billing.ingest FILE MOMENT …`.

Each FILE contains a batch as JSON. For each file a process is forked. It books the batch and kills
itself with SIGKILL at the MOMENT: `before-insert`, `before-commit`, `after-commit`, `before-redis`
or `after-redis`. Prints the exit code of each process.
"""

import json
import os
import signal
import sys
from pathlib import Path

import django
from redis.client import Pipeline


def die() -> None:
    """End the process at once, as if the machine lost power."""
    os.kill(os.getpid(), signal.SIGKILL)


def book_and_die(batch: Path, moment: str) -> None:
    """Book the batch and die at the moment."""
    from django.db import connections

    from billing.ingestion import ledger
    from billing.ingestion.batches import parse_json

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


def main(words: list[str]) -> None:
    """Kill a process for each batch, and print how each ended."""
    django.setup()
    statuses = []
    for batch, moment in zip(words[::2], words[1::2], strict=True):
        child = os.fork()
        if not child:
            book_and_die(Path(batch), moment)
            os._exit(0)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.stdout.write(json.dumps(statuses))


if __name__ == "__main__":
    main(sys.argv[1:])

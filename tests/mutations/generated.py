"""Generate mutations of the money path, and test them in copies of the project."""

import json
import pickle
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.mutations import lua_source, python_source
from tests.mutations.catalogue import ROOT
from tests.mutations.copies import copy_to
from tests.mutations.job import Job
from tests.mutations.money_path import Room
from tests.mutations.mutation import Mutation


@dataclass(frozen=True)
class Verdict:
    """What the tests said: "killed", "timeout", "survived", "untested" or "no verdict"."""

    mutation: Mutation
    outcome: str
    detail: str
    seconds: float

    @property
    def survived(self) -> bool:
        """Return whether no test noticed the mutation."""
        return self.outcome in ("survived", "untested")


def generate(file: str) -> list[Mutation]:
    """Return every mutation of a file."""
    source = lua_source if file.endswith(".lua") else python_source
    return list(source.mutations(ROOT, file))


def sample(mutations: list[Mutation], share: float, seed: str) -> list[Mutation]:
    """Return a share of the mutations, at least one; the same for the same seed."""
    count = min(len(mutations), max(1, round(len(mutations) * share)))
    return random.Random(seed).sample(mutations, count)


def judge(
    room: Room, mutations: list[Mutation], *, seconds: float = 1e9, known: Path | None = None
) -> list[Verdict]:
    """Test mutations of a room, as many as begin within the time.

    `known` is a file that remembers, for a further call, which lines each test runs.
    """
    verdicts: list[Verdict] = []
    end = time.monotonic() + seconds
    while left := mutations[len(verdicts) :]:
        with tempfile.TemporaryDirectory(prefix="tollgate-mutations-") as scratch:
            further = _judge(room, left, end - time.monotonic(), known, Path(scratch))
        verdicts += further
        # A script that never ends blocks its server, so a new process goes on with new servers.
        if further[-1].outcome != "timeout":
            break
    return verdicts


def _judge(
    room: Room, mutations: list[Mutation], seconds: float, known: Path | None, scratch: Path
) -> list[Verdict]:
    copy = copy_to(scratch)
    job = Job(
        mutations,
        room.files(ROOT),
        list(room.tests),
        seconds,
        str(known or scratch / "known.pickle"),
    )
    (scratch / "job.pickle").write_bytes(pickle.dumps(job))
    with (scratch / "log").open("wb") as log:
        command = [sys.executable, "-m", "tests.mutations.worker", str(scratch)]
        subprocess.run(command, cwd=copy, stdout=log, stderr=log, check=False)
    results = scratch / "results.jsonl"
    if not results.exists():
        end = (scratch / "log").read_text(errors="replace")[-4000:]
        raise RuntimeError(f"no verdicts about {room.name}:\n{end}")
    found = [json.loads(line) for line in results.read_text().splitlines()]
    return [
        Verdict(mutation, one["outcome"], one["detail"], one["seconds"])
        for mutation, one in zip(mutations, found, strict=False)
    ]

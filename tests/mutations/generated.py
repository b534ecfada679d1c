"""Generate mutations of the money path, and test them in a copy of the project."""

import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import json
from pathlib import Path

from tests.mutations import lua_source, python_source
from tests.mutations.catalogue import ROOT
from tests.mutations.money_path import Room
from tests.mutations.mutation import Mutation
from tests.mutations.worker import Job

COPIED_NOT = shutil.ignore_patterns(".git", ".venv*", ".devstack", "__pycache__", ".*_cache")


def generate(file: str) -> list[Mutation]:
    source = lua_source if file.endswith(".lua") else python_source
    return list(source.mutations(ROOT, file))


def sample(mutations: list[Mutation], share: float, seed: str) -> list[Mutation]:
    """Return a share of the mutations, the same for the same seed."""
    chance = random.Random(seed)
    count = max(1, round(len(mutations) * share)) if mutations else 0
    return chance.sample(mutations, count)


def judge(room: Room, mutations: list[Mutation], seconds: float, known: str = "") -> list[dict]:
    """Test mutations of a room until the time is over; return the verdicts."""
    with tempfile.TemporaryDirectory(prefix="tollgate-mutations-") as scratch:
        copy = Path(scratch) / "tollgate"
        shutil.copytree(ROOT, copy, ignore=COPIED_NOT)
        job = Job(mutations, room.files(ROOT), list(room.tests), seconds, known)
        (Path(scratch) / "job.pickle").write_bytes(pickle.dumps(job))
        with (Path(scratch) / "log").open("wb") as log:
            status = subprocess.run(
                [sys.executable, "-m", "tests.mutations.worker", scratch],
                cwd=copy, stdout=log, stderr=log, check=False,
            ).returncode  # fmt: skip
        results = Path(scratch) / "results.jsonl"
        if not results.exists():
            text = (Path(scratch) / "log").read_text(errors="replace")
            raise RuntimeError(f"no verdicts for {room.name} ({status}):\n{text[-4000:]}")
        return [json.loads(line) for line in results.read_text().splitlines()]

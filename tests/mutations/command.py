"""`make mutations`: make mistakes in a copy of the project and see that tests fail.

First come the known mistakes of the catalogue, each with its own test. Then come generated
mutations of the money path: a sample of them, or all. The exit status is 1 if one survives that
`survivors.toml` does not name.
"""

import argparse
import datetime
import math
import sys
from collections import defaultdict

from tests.mutations import known
from tests.mutations.catalogue import ROOT
from tests.mutations.generated import Verdict, generate, judge, sample
from tests.mutations.money_path import ROOMS
from tests.mutations.survivors import accepted

MOST_SURVIVORS = 0.03
"""The share of mutations that may survive. Beyond it, write tests instead of reasons."""


def main(arguments: list[str]) -> int:
    """Run what the arguments ask for; return the exit status."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    parser = argparse.ArgumentParser(prog="make mutations ARGS=…", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every generated mutation")
    parser.add_argument("--share", type=float, default=0.05, help="a share of them (0.05)")
    parser.add_argument("--seed", default=today, help="which of them (today's date)")
    parser.add_argument("--only", default="", help="only files whose path contains this")
    parser.add_argument("--generated", action="store_true", help="without the known mistakes")
    parser.add_argument("--known", action="store_true", help="the known mistakes alone")
    chosen = parser.parse_args(arguments)
    unnoticed = 0 if chosen.generated or chosen.only else known.unnoticed()
    if not chosen.known:
        unnoticed += run(1.0 if chosen.all else chosen.share, chosen.seed, chosen.only)
    return 1 if unnoticed else 0


def run(share: float, seed: str, only: str) -> int:
    """Test generated mutations and print a table; return how many faults were found."""
    say(f"A share of {share:.0%}, by the seed {seed!r}.")
    reasons = {survivor.key: survivor.reason for survivor in accepted()}
    generated: dict[str, int] = {}
    verdicts: list[Verdict] = []
    faults = 0
    existing = set()
    for room in ROOMS:
        chosen = []
        for file in room.files(ROOT):
            mutations = generate(file)
            generated[file] = len(mutations)
            existing |= {mutation.key for mutation in mutations}
            if only in file and mutations:
                chosen += sample(mutations, share, f"{seed} {file}")
        if chosen:
            verdicts += judge(room, chosen)
            say(f"{room.name}: {len(chosen)} tested")
    for verdict in verdicts:
        mutation = verdict.mutation
        if verdict.outcome == "no verdict" or (verdict.survived and mutation.key not in reasons):
            faults += 1
            say(f"{verdict.outcome.upper()}  {mutation.place}  {mutation.function}")
            say(f"    {mutation.before}\n    {mutation.after}")
    for key in reasons.keys() - existing:
        faults += 1
        say(f"survivors.toml names a mutation that does not exist: {key}")
    if len(reasons) > MOST_SURVIVORS * sum(generated.values()):
        faults += 1
        say(f"survivors.toml names more than {MOST_SURVIVORS:.0%} of all mutations")
    say(table(generated, verdicts))
    return faults


def table(generated: dict[str, int], verdicts: list[Verdict]) -> str:
    """Return how many mutations of each file there are, were tried, and survived."""
    by_file = defaultdict(list)
    for verdict in verdicts:
        by_file[verdict.mutation.file].append(verdict)
    lines = ["| file | mutations | tried | survived | at most (95 %) |", "|---|---|---|---|---|"]
    for file, found in [*sorted(by_file.items()), ("all", verdicts)]:
        tried = sum(one.outcome != "no verdict" for one in found)
        survived = sum(one.survived for one in found)
        total = generated.get(file, sum(generated.values()))
        bound = highest_share(survived, tried, total)
        lines.append(f"| {file} | {total} | {tried} | {survived} | {bound:.0%} |")
    return "\n".join(lines)


def highest_share(survived: int, tried: int, total: int) -> float:
    """Return the upper end of Wilson's 95 % interval; what was seen, if all were tried."""
    if tried in (0, total):
        return survived / tried if tried else 1.0
    z, share = 1.96, survived / tried
    middle = share + z * z / (2 * tried)
    spread = z * math.sqrt(share * (1 - share) / tried + z * z / (4 * tried * tried))
    return min(1.0, (middle + spread) / (1 + z * z / tried))


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()

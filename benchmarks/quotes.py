"""Whether nine of ten runs cost what was quoted, for costs of known distributions.

    python -m benchmarks.quotes [TRIALS]

Each trial draws a history of runs and one further run, and checks whether the range quoted from the
history contains the further run. The target is 88 to 92 % for every distribution and length.
"""

import random
import sys
from collections.abc import Callable, Sequence

from benchmarks.load.table import Table
from workflows.quotes.ranges import range_of

TRIALS = 20_000
LENGTHS = (9, 15, 19, 25, 50, 200)
LOWEST, HIGHEST = 0.88, 0.92
Source = random.Random
COSTS: dict[str, Callable[[Source], float]] = {
    "lognormal, σ = 1": lambda source: source.lognormvariate(16, 1),
    "lognormal, σ = 2": lambda source: source.lognormvariate(16, 2),
    "uniform": lambda source: source.uniform(1e6, 9e7),
    "exponential": lambda source: source.expovariate(1e-7),
    "two kinds of work": lambda source: source.gauss(*source.choice([(2e6, 2e5), (4e7, 4e6)])),
    "heavy tail (Pareto, α = 1.1)": lambda source: 1e6 * source.paretovariate(1.1),
}
"""Costs of a run in micro-credits."""


def main(trials: int) -> int:
    """Measure every distribution; return 1 if a target was missed."""
    table = Table()
    for name in COSTS:
        shares = [held_out(name, length, trials) for length in LENGTHS]
        is_met = all(LOWEST <= share <= HIGHEST for share in shares)
        seen = " / ".join(f"{100 * share:.1f}" for share in shares)
        table.add(f"{name}, within the range, %", seen, "88 to 92", is_met, exactness=True)
    drifting = 100 * held_out_of_growing_work(trials // 10)
    table.add("growing by 1 % with each run, history of 200, %", f"{drifting:.1f}")
    print(f"\nHistories of {', '.join(map(str, LENGTHS))} runs; {trials:,} trials each.")
    table.show()
    return 1 if table.missed else 0


def held_out(name: str, length: int, trials: int) -> float:
    """Return the share of further runs that cost what was quoted."""
    source = random.Random(f"{name} {length}")
    cost = COSTS[name]
    costs = ([abs(cost(source)) for _ in range(length + 1)] for _ in range(trials))
    return sum(map(is_within, costs)) / trials


def held_out_of_growing_work(trials: int) -> float:
    """Return the share for work that becomes dearer, which past runs can't predict."""
    source = random.Random("growing")
    costs = (
        [source.lognormvariate(16, 1) * 1.01**-age for age in range(201)] for _ in range(trials)
    )
    return sum(map(is_within, costs)) / trials


def is_within(costs: Sequence[float]) -> bool:
    """Return whether the newest cost, which is the first, is within the range of the others."""
    new, *history = map(int, costs)
    found = range_of(history)
    return found is not None and (found.low or 0) <= new <= found.high


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS))

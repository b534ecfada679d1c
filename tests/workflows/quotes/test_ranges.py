"""Nine of ten runs stay within the range of those before them, whatever the costs look like."""

import random
from collections.abc import Callable, Iterator

import pytest

from workflows.quotes.ranges import FEWEST, MOST, Range, range_of

COSTS: dict[str, Callable[[random.Random], float]] = {
    "lognormal": lambda source: source.lognormvariate(16, 1),
    "two kinds": lambda source: source.gauss(*source.choice([(2e6, 2e5), (4e7, 4e6)])),
    "heavy tail": lambda source: 1e6 * source.paretovariate(1.1),
}


def held_out(name: str, runs: int, trials: int) -> Iterator[bool]:
    """Yield whether a further run is within the range of `runs` runs, for many histories."""
    source = random.Random(f"{name} {runs}")
    cost = COSTS[name]
    for _ in range(trials):
        *history, new = (int(abs(cost(source))) for _ in range(runs + 1))
        found = range_of(history)
        assert found is not None
        yield (found.low or 0) <= new <= found.high


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("runs", [9, 15, 19, 40])
def test_nine_of_ten_held_out_runs_are_within_the_range(name, runs):
    trials = 4_000
    assert 0.88 <= sum(held_out(name, runs, trials)) / trials <= 0.92


@pytest.mark.parametrize("runs", range(FEWEST, MOST + 3))
def test_exactly_nine_of_ten_gaps_between_the_costs_are_within_the_range(runs):
    found = range_of(list(range(1, runs + 1)))
    assert found is not None
    assert (found.high - (found.low or 0)) * 10 == (found.runs + 1) * 9
    above, below = found.runs + 1 - found.high, found.low or 0
    assert above - below in (0, -1) or (above, below) == (1, 0)
    assert runs - 10 < found.runs <= runs or found.runs == MOST


def test_too_few_runs_have_no_range():
    assert range_of([5] * (FEWEST - 1)) is None


def test_only_the_newest_runs_count():
    newest = [3] * MOST
    assert range_of([*newest, *[1000] * MOST]) == Range(3, 3, 3, MOST)
    assert range_of([*[3] * 9, 1000, 1000]) == Range(None, 3, 3, 9)

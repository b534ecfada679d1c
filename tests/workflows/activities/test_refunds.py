"""Every failure of a run is either ours, and its cost is given back, or theirs."""

import inspect

import pytest

from coding_tasks import failures
from coding_tasks.failures import RunFailure
from workflows.activities import refunds

NAMES = {
    name
    for name, member in inspect.getmembers(failures, inspect.isclass)
    if issubclass(member, RunFailure | failures.MustWait)
} - {RunFailure.__name__, failures.MustWait.__name__}


def test_every_failure_is_either_ours_or_theirs():
    assert refunds.OURS.isdisjoint(refunds.THEIRS)
    assert NAMES <= refunds.OURS | refunds.THEIRS


@pytest.mark.parametrize("failure", ["TypeError", "", "ResultLost", "timed out", "abandoned"])
def test_what_nobody_else_caused_is_ours(failure):
    assert refunds.is_ours(failure)


@pytest.mark.parametrize(
    "failure", ["AgentEnded", "out of credits", "RepositoryRefused", "OwnerLeft", "Uninstalled"]
)
def test_what_the_agent_a_limit_or_an_owner_caused_is_not_ours(failure):
    assert not refunds.is_ours(failure)

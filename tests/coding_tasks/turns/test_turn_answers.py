"""What a run answers after its agent's turn: the agent's words, and the limit that ended it."""

import pytest

from coding_tasks.agent_worker.job import Ending, TurnResult
from coding_tasks.failures import AgentEnded, OutOfCredits, RunCapReached
from coding_tasks.repositories.changes import Change
from coding_tasks.sandbox.interface import Limit
from coding_tasks.turns.turn_answers import answer_of, is_run_cap

CHANGE = Change("c", "p", "tollgate/x", (), b"", b"", b"")


def test_a_whole_answer_is_the_answer():
    result = TurnResult(Ending.ANSWERED, answer="Done.", said="I begin.")
    assert answer_of(result, None, capped=False) == "Done."


@pytest.mark.parametrize("limit", list(Limit))
@pytest.mark.parametrize("change", [None, CHANGE])
def test_every_limit_ends_with_an_answer_that_names_it(limit, change):
    result = TurnResult(Ending.LIMIT, detail=str(limit), complete=False)
    answer = answer_of(result, change, capped=False)
    named = {"seconds": "worked for", "cpu_seconds": "processor", "memory": "memory"}
    assert named.get(limit, "printed") in answer
    assert ("change so far is kept" in answer) == (change is not None)
    assert answer.endswith("Reply to continue.")


def test_what_was_said_last_comes_back_if_the_run_reached_its_cap():
    result = TurnResult(Ending.SILENT, complete=False, said="I found the bug in a.py.")
    assert answer_of(result, CHANGE, capped=True) == (
        "I found the bug in a.py.\n\nThe agent ended before it was done (it used the credits that "
        "one task may use). Its change so far is kept. Reply to continue."
    )


def test_the_answer_says_that_the_run_used_what_was_accepted():
    result = TurnResult(Ending.SILENT, complete=False, said="I found the bug in a.py.")
    answer = answer_of(result, CHANGE, capped=True, accepted=True)
    assert "(it used the credits that were accepted for it)" in answer


def test_an_agent_that_ends_by_itself_without_anything_has_no_answer():
    with pytest.raises(AgentEnded):
        answer_of(TurnResult(Ending.SILENT, said="hm"), None, capped=False)


def test_caps_on_runs_are_distinguished_from_other_refusals():
    assert is_run_cap(RunCapReached())
    assert is_run_cap(OutOfCredits(None, "run_cap_reached"))
    assert not is_run_cap(OutOfCredits(None, "user_cap_reached"))
    assert not is_run_cap(None)

"""What a run's quote is made of, and when it asks."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from billing.allowances.caps import set_cap
from billing.allowances.limits import set_limit
from coding_tasks.models import CodingTask, ProjectAgent, Repository, TaskRun
from projects.models import SlackWorkspace
from quota.gate import QuotaUnknown
from quota.resources import AI_CREDITS, MICRO
from tests.ready_project import ready_project
from tests.workflows.quotes.past_runs import past_run, past_runs
from workflows.models import CostConfirmation, CreditRequest, Mention, Notice, RunQuote
from workflows.quotes import ending, quoting, words
from workflows.quotes.ending import Conclusion

pytestmark = pytest.mark.usefixtures("redis_client")
DAY = timedelta(days=1)


@pytest.fixture
def workspace(db) -> SlackWorkspace:
    return SlackWorkspace.objects.create(
        project=ready_project("Acme", "Main"),
        team_id="T1",
        name="Acme",
        bot_user_id="UBOT",
        bot_token="xoxb-demo",
    )


@pytest.fixture
def run(workspace: SlackWorkspace) -> TaskRun:
    """A run of U1 that is to begin."""
    project = workspace.project
    Mention.objects.create(
        workspace=workspace, team_id="T1", channel_id="C1", ts="1.1", thread_ts="1.1",
        user_id="U1", text="<@UBOT> hi", state="started", workflow_id="mention-T1-C1-1.1",
    )  # fmt: skip
    task = CodingTask.objects.create(
        project=project,
        repository=Repository.objects.create(
            project=project, full_name="a/b", clone_url="file:///"
        ),
        workspace=workspace,
        channel_id="C1",
        thread_ts="1.1",
        owner_slack_user_id="U1",
        title="hi",
        workflow_id="mention-T1-C1-1.1",
        agent="reader",
    )
    return TaskRun.objects.create(task=task, message_ts="1.1", request="hi")


def ask_above(workspace: SlackWorkspace, credits: float | None) -> None:
    micro = None if credits is None else int(credits * MICRO)
    CostConfirmation.objects.create(project=workspace.project, ask_above_micro=micro)


def quote(run: TaskRun) -> RunQuote:
    return quoting.quote(run, timezone.now(), DAY)


def offered(made: RunQuote) -> tuple[Any, ...]:
    return made.state, *(
        None if each is None else each / MICRO for each in (made.offered_micro, made.smaller_micro)
    )


# --- The range -----------------------------------------------------------------------------------
def test_without_runs_there_is_no_history(run):
    made = quote(run)
    assert (made.history, made.high_micro, made.runs_compared) == ("none", None, 0)
    assert offered(made) == ("shown", None, None)


def test_the_range_is_that_of_the_projects_agent_in_the_ledger(workspace, run):
    past_runs(workspace, range(1, 20))
    past_runs(workspace, [500] * 20, agent="claude")
    made = quote(run)
    assert (made.history, made.runs_compared) == ("agent", 19)
    assert (made.low_micro, made.high_micro) == (1 * MICRO, 19 * MICRO)


def test_runs_with_another_model_are_not_comparable(workspace, run):
    ProjectAgent.objects.create(project=workspace.project, agent="claude", model="small-one")
    CodingTask.objects.filter(pk=run.task_id).update(agent="claude")
    run.task.refresh_from_db()
    past_runs(workspace, [5] * 16, agent="claude", model="small-one")
    past_runs(workspace, [900] * 20, agent="claude", model="large-one")
    assert quote(run).high_micro == 5 * MICRO
    run.refresh_from_db()
    assert run.model == "small-one"


def test_with_too_few_runs_of_the_agent_all_runs_of_the_project_are_compared(workspace, run):
    past_runs(workspace, [3] * 4)
    past_runs(workspace, [8] * 6, agent="claude")
    made = quote(run)
    assert (made.history, made.runs_compared, made.low_micro) == ("project", 9, None)
    assert made.high_micro == 8 * MICRO


def test_runs_that_do_not_show_what_work_costs_are_left_out(workspace, run):
    past_runs(workspace, [5] * 9)
    past_runs(workspace, [700] * 3, state="stopped")
    past_runs(workspace, [700] * 3, state="failed")
    past_runs(workspace, [0] * 3)
    past_runs(workspace, [700] * 3, origin="api")
    past_runs(workspace, [700] * 3, ended=timezone.now())
    smaller = past_run(workspace, 700)
    RunQuote.objects.create(run=smaller, history="none", state="smaller")
    other = SlackWorkspace.objects.create(
        project=ready_project("Stranger", "Theirs"), team_id="T2", bot_token="x", bot_user_id="U"
    )
    past_runs(other, [700] * 8)
    assert (quote(run).runs_compared, quote(run).high_micro) == (9, 5 * MICRO)


def test_a_run_that_used_all_that_was_accepted_counts_as_dearer(workspace, run):
    past_runs(workspace, [10] * 9, state="failed", used_all_accepted=True)
    assert quote(run).high_micro == 15 * MICRO


def test_a_quote_reads_few_rows(workspace, run, django_assert_max_num_queries):
    past_runs(workspace, [5] * 16)
    with django_assert_max_num_queries(12):
        quote(run)


# --- Asking --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("above", "expected"),
    [
        (None, ("shown", None, None)),
        (19, ("shown", None, None)),
        (18.9, ("asked", 19, 10)),
        (0, ("asked", 19, 10)),
    ],
)
def test_a_run_asks_if_it_may_cost_more_than_the_threshold(workspace, run, above, expected):
    ask_above(workspace, above)
    past_runs(workspace, range(1, 20))
    assert offered(quote(run)) == expected


@pytest.mark.parametrize(
    ("above", "expected"),
    [(40, ("asked", 40, 20)), (0.5, ("asked", 1, None)), (0, ("asked", 40, 20))],
)
def test_without_a_history_a_run_may_cost_more_than_any_threshold(workspace, run, above, expected):
    ask_above(workspace, above)
    assert offered(quote(run)) == expected


def test_a_run_that_may_cost_more_than_is_left_asks_for_what_is_left(workspace, run):
    ask_above(workspace, 1000)
    past_runs(workspace, [30] * 16)
    set_limit(workspace.project.organization, AI_CREDITS, 100 * MICRO)
    assert offered(quote(run)) == ("shown", None, None)
    RunQuote.objects.all().delete()
    set_cap(workspace.project.organization, AI_CREDITS, "user", 12 * MICRO + 5)
    made = quote(run)
    assert offered(made) == ("asked", 12, 6)
    assert (made.left_micro, made.left_of) == (12 * MICRO + 5, "user_cap_reached")


def test_less_than_one_credit_is_offered_as_it_is(workspace, run):
    ask_above(workspace, 0)
    set_limit(workspace.project.organization, AI_CREDITS, MICRO // 2)
    assert offered(quote(run)) == ("asked", 0.5, None)


def test_a_quote_does_not_wait_for_a_store_that_is_down(workspace, run, monkeypatch):
    def down(*_arguments, **_options):
        raise QuotaUnknown("down")

    monkeypatch.setattr("quota.gate.standings", down)
    past_runs(workspace, [5] * 16)
    made = quote(run)
    assert (made.high_micro, made.left_micro) == (5 * MICRO, None)


def test_the_question_names_the_range_the_cap_and_the_choices(workspace, run):
    ask_above(workspace, 1)
    past_runs(workspace, range(1, 20))
    set_cap(workspace.project.organization, AI_CREDITS, "run", 50 * MICRO)
    quote(run)
    notice = Notice.objects.get()
    assert notice.text == (
        "<@U1>, before I start: Nine of ten comparable runs used 1.00 to 19.00 credits. One task "
        "may use 50.00 credits. How much may this use? It stops when it has used that, and shows "
        "what it has."
    )
    labels = [each["text"]["text"] for each in notice.blocks[-1]["elements"]]
    assert labels == ["Run for up to 19 credits", "Smaller: up to 10", "Cancel"]


def test_the_progress_says_what_ends_the_run_first(workspace, run):
    set_limit(workspace.project.organization, AI_CREDITS, 30 * MICRO)
    made = quote(run)
    nothing = "There is no history yet of what this uses."
    of_team = "30.00 credits were left of your team's credits when it began."
    accepted = "It stops at the 12.00 credits that were accepted."
    assert words.summary(made, None) == f"{nothing} {of_team}"
    assert words.summary(made, 12 * MICRO) == f"{nothing} {accepted}"
    assert words.summary(made, 40 * MICRO) == f"{nothing} {of_team}"


def test_a_second_attempt_makes_no_second_quote_and_no_second_question(workspace, run):
    ask_above(workspace, 1)
    first = quote(run)
    past_runs(workspace, range(1, 20))
    assert quote(run) == first
    assert Notice.objects.count() == 1


# --- Concluding ----------------------------------------------------------------------------------
@pytest.mark.parametrize("state", ["queued", "succeeded", "failed"])
def test_a_run_whose_quote_was_accepted_goes_on_even_if_its_workflow_was_reset(
    workspace, run, state
):
    ask_above(workspace, 1)
    quote(run)
    RunQuote.objects.update(state="accepted")
    TaskRun.objects.update(state=state)
    for _ in range(2):
        assert ending.conclude(run, timezone.now(), is_last=False) == Conclusion()
    assert TaskRun.objects.get().state == state
    assert not ending.unheard().exists()


def test_a_run_that_was_stopped_before_the_answer_does_not_go_on(workspace, run):
    ask_above(workspace, 1)
    quote(run)
    assert ending.conclude(run, timezone.now(), is_last=False) == Conclusion(waits=True)
    TaskRun.objects.update(state="stopped", error="stopped by the message 2.1")
    why = "ended before anybody answered the question about its cost"
    assert ending.conclude(run, timezone.now(), is_last=False) == Conclusion(refusal=why)
    assert RunQuote.objects.get().state == "dropped"
    assert TaskRun.objects.get().error == "stopped by the message 2.1"


# --- After a denial ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("state", "granted", "cap"),
    [
        ("resumed", 40, 40),
        ("resumed", 1_000, 40),
        ("resumed", 30, 30),
        ("resumed", None, None),  # somebody added credits in another way
        ("approved", 40, None),  # and the mention was repeated before they came
    ],
)
def test_what_was_approved_for_a_denied_request_is_its_cap_and_it_asks_nothing(
    workspace: SlackWorkspace, run: TaskRun, state: str, granted: int | None, cap: int | None
):
    ask_above(workspace, 0)
    CreditRequest.objects.create(
        mention=Mention.objects.get(),
        state=state,
        suggested_micro=40 * MICRO,
        granted_micro=granted and granted * MICRO,
    )
    made = quote(run)
    run.refresh_from_db()
    assert run.accepted_micro == (cap and cap * MICRO)
    assert made.state == ("shown" if cap else "asked")
    assert Notice.objects.exists() == (cap is None)


def test_an_approval_changes_nothing_where_runs_do_not_ask(workspace: SlackWorkspace, run: TaskRun):
    CreditRequest.objects.create(
        mention=Mention.objects.get(),
        state="resumed",
        suggested_micro=40 * MICRO,
        granted_micro=40 * MICRO,
    )
    quote(run)
    run.refresh_from_db()
    assert run.accepted_micro is None

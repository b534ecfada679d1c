"""A run has one answer and a token that ends with it, whatever fails."""

from contextlib import contextmanager

import pytest

from coding_tasks import api_tasks, runs
from coding_tasks.failures import CheckoutFailed, ModelFailed, OutOfCredits
from coding_tasks.models import CodingTask, Repository, TaskRun
from coding_tasks.turns.places import take_place
from projects.models import OAuthAccessToken, Project


class Checkouts:
    """Provides a checkout that is not read."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.cloned: list[str] = []

    @contextmanager
    def checkout(self, clone_url):
        self.cloned.append(clone_url)
        if self.error:
            raise self.error
        yield None


class Agent:
    """Answers from a list, and records its calls."""

    def __init__(self, *answers: str | BaseException) -> None:
        self.answers = list(answers)
        self.assignments = []
        self.tokens = []

    def work(self, assignment, checkout, access):
        self.assignments.append(assignment)
        self.access = access
        self.tokens = list(OAuthAccessToken.objects.values("task_run_id", "products", "scope"))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def task(project, workspace, repository) -> CodingTask:
    return CodingTask.objects.create(
        project=project,
        repository=repository,
        workspace=workspace,
        channel_id="C1",
        thread_ts="100.1",
        owner_slack_user_id="U1",
        title="what is this?",
        workflow_id="mention-1",
    )


@pytest.fixture
def run(task) -> TaskRun:
    return TaskRun.objects.create(task=task, message_ts="100.1", request="what is this?")


def test_the_agent_works_with_a_token_of_this_run_for_this_product_only(run, settings):
    agent = Agent("It is a shop.")
    performed = runs.perform(run, Checkouts(), agent)
    assert (performed.state, performed.answer) == (TaskRun.State.SUCCEEDED, "It is a shop.")
    assert performed.started_at <= performed.finished_at
    assert agent.tokens == [
        {"task_run_id": run.pk, "products": ["slack_app"], "scope": "llm_gateway:read"}
    ]
    assert agent.access.base_url == f"{settings.GATEWAY_URL}/slack_app"
    assert agent.access.token.startswith("pha_")


def test_every_token_of_a_run_carries_what_was_accepted_for_it(run):
    TaskRun.objects.update(accepted_micro=40_000_000)
    carried = []

    class Pausing(Agent):
        def work(self, assignment, checkout, access):
            carried.extend(OAuthAccessToken.objects.values_list("accepted_micro", flat=True))
            return super().work(assignment, checkout, access)

    agent = Pausing(OutOfCredits(None), ModelFailed("down"), "Done.")
    for error in (OutOfCredits, ModelFailed):
        with pytest.raises(error):
            runs.perform(run, Checkouts(), agent)
    assert runs.perform(run, Checkouts(), agent).answer == "Done."
    assert carried == [40_000_000] * 3


def test_a_run_that_used_what_was_accepted_is_marked(run):
    runs.fail(run, "AcceptedCapReached")
    assert TaskRun.objects.get().used_all_accepted


def test_characters_that_no_database_stores_are_removed_from_answers(run):
    assert runs.perform(run, Checkouts(), Agent("a\0b\ud800c")).answer == "ab?c"


@pytest.mark.parametrize(
    "end", [OutOfCredits(), ModelFailed("no answer"), KeyboardInterrupt(), ValueError()]
)
def test_the_token_ends_with_the_run_however_it_ends(run, end):
    with pytest.raises(type(end)):
        runs.perform(run, Checkouts(), Agent(end))
    assert not OAuthAccessToken.objects.exists()


def test_what_a_run_uses_counts_as_its_owners(run):
    class Noting(Agent):
        def work(self, assignment, checkout, access):
            token = OAuthAccessToken.objects.get()
            return f"{token.distinct_id} {token.task_run_id}"

    owner = f"slack:{run.task.workspace.team_id}:{run.task.owner_slack_user_id}"
    assert runs.perform(run, Checkouts(), Noting()).answer == f"{owner} {run.pk}"


def test_tokens_of_killed_attempts_are_revoked(run, project):
    runs.mint_run_token(project, run.pk, ["slack_app"], runs.TIME_LIMIT)
    runs.perform(run, Checkouts(), Agent("fine"))
    assert not OAuthAccessToken.objects.exists()


def test_an_answered_run_is_not_done_again(run):
    runs.perform(run, Checkouts(), Agent("once"))
    again = Agent()
    run.refresh_from_db()
    assert runs.perform(run, Checkouts(), again).answer == "once"
    assert again.assignments == []


def test_a_run_that_another_attempt_finishes_before_this_one_begins_is_not_done_again(run):
    found = TaskRun.objects.select_related("task__repository").get(pk=run.pk)
    runs.perform(run, Checkouts(), Agent("once"))
    agent, checkouts = Agent("twice"), Checkouts()
    assert runs.perform(found, checkouts, agent).answer == "once"
    assert (agent.assignments, checkouts.cloned) == ([], [])
    assert not OAuthAccessToken.objects.exists()


def test_the_first_of_two_answers_stays(run):
    class Overtaken(Agent):
        def work(self, assignment, checkout, access):
            other = TaskRun.objects.get(pk=run.pk)
            runs.perform(other, Checkouts(), Agent("first"))
            return "second"

    assert runs.perform(run, Checkouts(), Overtaken()).answer == "first"


def test_a_run_without_credits_is_paused_and_may_be_done_later(run):
    with pytest.raises(OutOfCredits):
        runs.perform(run, Checkouts(), Agent(OutOfCredits()))
    run.refresh_from_db()
    assert run.state == TaskRun.State.PAUSED
    assert runs.perform(run, Checkouts(), Agent("later")).answer == "later"


def test_no_model_is_called_if_the_repository_cannot_be_fetched(run):
    agent = Agent("never")
    with pytest.raises(CheckoutFailed):
        runs.perform(run, Checkouts(CheckoutFailed("gone", permanent=True)), agent)
    assert agent.assignments == []


def test_the_agent_is_told_what_was_answered_before(task, run):
    runs.perform(run, Checkouts(), Agent("It is a shop."))
    failed = TaskRun.objects.create(task=task, message_ts="100.2", request="and?")
    runs.fail(failed, "ModelFailed")
    second = TaskRun.objects.create(task=task, message_ts="100.3", request="what does it sell?")
    agent = Agent("Shoes.")
    runs.perform(second, Checkouts(), agent)
    [assignment] = agent.assignments
    assert assignment.repository == "acme/shop"
    assert assignment.request == "what does it sell?"
    assert [(turn.request, turn.answer) for turn in assignment.earlier] == [
        ("what is this?", "It is a shop.")
    ]


def test_an_answer_is_stored_only_if_its_token_is_revoked(run, monkeypatch):
    def killed(_run):
        raise SystemExit

    monkeypatch.setattr(runs, "revoke_run_tokens", killed)
    with pytest.raises(SystemExit):
        runs.perform(run, Checkouts(), Agent("fine"))
    run.refresh_from_db()
    assert run.state == TaskRun.State.RUNNING, "it is performed again, and that revokes"


def test_a_failure_does_not_take_an_answer_back(run):
    runs.perform(run, Checkouts(), Agent("fine"))
    runs.fail(run, "ModelFailed")
    run.refresh_from_db()
    assert (run.state, run.error) == (TaskRun.State.SUCCEEDED, "")


# --- Places for turns ----------------------------------------------------------------------------
@pytest.fixture
def wanting(task, settings):
    """Four runs of a project that has two places."""
    settings.AGENT_TURNS_PER_PROJECT = 2
    return [task.runs.create(message_ts=f"1.{n}", request="x") for n in range(4)]


def test_a_project_has_a_bounded_number_of_places_taken_in_order(wanting):
    first, second, third, fourth = wanting
    assert [take_place(run) for run in wanting] == [True, True, False, False]
    assert take_place(first)  # which it keeps, however often it asks
    runs.mark_collected(first)
    assert not take_place(fourth)  # the third asked before
    assert take_place(third)
    runs.fail(second, "TypeError")
    assert not take_place(first)  # it goes on, behind the fourth
    assert take_place(fourth)


def test_the_runs_of_other_projects_need_no_place_of_this_one(wanting):
    for run in wanting:
        take_place(run)
    project = Project.objects.create(organization=wanting[0].task.project.organization, name="B")
    repository = Repository.objects.create(project=project, full_name="a/b", clone_url="file:///b")
    other = api_tasks.create(api_tasks.NewTask(repository, "api", None, "hello"))
    assert take_place(other)


def test_without_a_limit_every_run_has_a_place(wanting, settings):
    settings.AGENT_TURNS_PER_PROJECT = 0
    assert all(take_place(run) for run in wanting)

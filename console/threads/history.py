"""The history of a Slack thread: who asked, what was refused and why, and what it cost.

It joins mentions and the bot's messages (`workflows`), tasks and runs (`coding_tasks`), and credits
and decisions (`billing`). The number of queries does not depend on how much happened in the thread.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.models import Account, DecisionRecord
from billing.reports.decision_history import WHOLE_ACCOUNT, DecisionHistory, Subject
from billing.reports.model_usage import ModelUsage, model_usage_of_runs, model_usage_of_traces
from coding_tasks.models import CodingTask, TaskRun
from console.threads.lookup import MAX_MESSAGES, ThreadKey, messages_in
from projects.models import Project, SlackWorkspace
from quota.reasons import Reason
from quota.resources import AI_CREDITS
from workflows.mention_types import OUT_OF_CREDITS, out_of_credits
from workflows.models import FollowUp, Mention, Notice
from workflows.notices import answer_key
from workflows.requests import request_text


@dataclass(frozen=True, slots=True)
class RefusalDetails:
    """Why a message was refused: the reason, the denial and the decision.

    `decision` is None if the project was limited by hand, or if some credits were left but too few
    to start or continue.
    """

    reason: str
    notice: Notice | None
    decision: DecisionRecord | None


@dataclass(frozen=True, slots=True)
class Request:
    """One mention or follow-up, the bot's messages about it, and why it was refused, if it was."""

    message: Mention | FollowUp
    notices: tuple[Notice, ...]
    refusal: RefusalDetails | None

    @property
    def text(self) -> str:
        """The message as the person typed it."""
        return request_text(self.message)


@dataclass(frozen=True, slots=True)
class RunHistory:
    """One run, what it used, and the notice that carries its answer."""

    run: TaskRun
    models: tuple[ModelUsage, ...]
    answer: Notice | None

    @property
    def credits_micro(self) -> int:
        """What the run used in total."""
        return sum(usage.credits_micro for usage in self.models)


@dataclass(frozen=True, slots=True)
class TaskHistory:
    """One coding task of the thread, with its runs in order."""

    task: CodingTask
    runs: tuple[RunHistory, ...]

    @property
    def state(self) -> str:
        """The state of its unfinished run, or else of the task."""
        states = (each.run.state for each in self.runs if each.run.state in TaskRun.UNFINISHED)
        return next(states, self.task.state)

    @property
    def credits_micro(self) -> int:
        """What the task used in total."""
        return sum(run.credits_micro for run in self.runs)


@dataclass(frozen=True, slots=True)
class ModelTotal:
    """The thread's usage of one model for one product."""

    product: str
    model: str
    generations: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    credits_micro: int


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread and everything known about it."""

    key: ThreadKey
    workspace: SlackWorkspace
    requests: tuple[Request, ...]
    tasks: tuple[TaskHistory, ...]
    models: tuple[ModelTotal, ...]

    @property
    def credits_micro(self) -> int:
        """What the thread used in total: choosing the repository, and its tasks."""
        return sum(total.credits_micro for total in self.models)

    @property
    def choosing_micro(self) -> int:
        """What it cost to choose the repository."""
        return self.credits_micro - sum(task.credits_micro for task in self.tasks)

    @property
    def permalink(self) -> str:
        """Its address in Slack, or "" if that is unknown."""
        return next((each.task.permalink for each in self.tasks if each.task.permalink), "")


def thread_history(key: ThreadKey) -> Thread | None:
    """Return the history of a thread, or None if nothing is known about it."""
    where = key._asdict()
    workspace = (
        SlackWorkspace.objects.select_related("project__organization")
        .defer("bot_token")
        .filter(pk=key.workspace_id)
        .first()
    )
    mentions = list(messages_in(Mention.objects.filter(**where))[:MAX_MESSAGES])
    follow_ups = list(messages_in(FollowUp.objects.filter(**where))[:MAX_MESSAGES])
    tasks = list(
        CodingTask.objects.filter(**where)
        .select_related("repository")
        .prefetch_related("runs")
        .order_by("created_at")
    )
    if workspace is None or not (mentions or follow_ups or tasks):
        return None
    project = workspace.project_in(key.channel_id)
    usage = model_usage_of_runs(run.pk for task in tasks for run in task.runs.all())
    choosing = model_usage_of_traces(
        {project.pk, workspace.project_id, *(task.project_id for task in tasks)},
        (mention.trace_id for mention in mentions),
    )
    answers = _answers(key)
    return Thread(
        key=key,
        workspace=workspace,
        requests=tuple(_requests([*mentions, *follow_ups], key, workspace, project)),
        tasks=tuple(_task_history(task, usage, answers) for task in tasks),
        models=_totals([*usage, *choosing]),
    )


def _requests(
    messages: Sequence[Mention | FollowUp],
    key: ThreadKey,
    workspace: SlackWorkspace,
    project: Project,
) -> Iterable[Request]:
    notices_of: dict[str, list[Notice]] = defaultdict(list)
    said = Notice.objects.filter(**key._asdict()).exclude(kind=Notice.Kind.PROGRESS)
    for notice in said.order_by("created_at"):
        notices_of[str(notice.mention_id or notice.key.partition(":")[2])].append(notice)
    refused = {
        message: _refused_at(message, notices_of[str(message.pk)])
        for message in messages
        if _was_refused(message, notices_of[str(message.pk)])
    }
    account = Account.objects.filter(
        organization=workspace.project.organization_id, resource=AI_CREDITS
    ).first()
    subjects = {
        subject for message in refused for subject in _subjects(message, workspace, project)
    }
    decisions = DecisionHistory(account, subjects, set(refused.values())) if account else None
    for message in sorted(messages, key=lambda message: message.received_at):
        notices = notices_of[str(message.pk)]
        refusal = None
        if message in refused:
            reason = _reason(message)
            decision = None
            if decisions and reason != Reason.SET_BY_HAND:
                about = _subjects(message, workspace, project)
                decision = decisions.refusing(about, refused[message])
            reason = reason or (decision.reason if decision else "")
            refusal = RefusalDetails(reason, _denial(notices), decision)
        yield Request(message, tuple(notices), refusal)


def _was_refused(message: Mention | FollowUp, notices: Sequence[Notice]) -> bool:
    """Return whether the message was refused for lack of credits."""
    if isinstance(message, FollowUp):
        return message.state == FollowUp.State.REFUSED
    return _denial(notices) is not None or message.outcome.startswith(OUT_OF_CREDITS)


def _refused_at(message: Mention | FollowUp, notices: Sequence[Notice]) -> datetime:
    denial = _denial(notices)
    return denial.created_at if denial else message.received_at


def _denial(notices: Sequence[Notice]) -> Notice | None:
    return next((notice for notice in notices if notice.kind == Notice.Kind.DENIAL), None)


def _reason(message: Mention | FollowUp) -> str:
    """Return the reason that the outcome names, or "" if it names none."""
    outcome = message.outcome
    reason = outcome.removeprefix(out_of_credits("")) if OUT_OF_CREDITS in outcome else ""
    return reason if reason in {*Reason} else ""


def _subjects(
    message: Mention | FollowUp, workspace: SlackWorkspace, project: Project
) -> list[Subject]:
    """Return the subjects whose decision may have refused the message.

    That is the capped project or user if the reason names a cap, otherwise all of them.
    """
    paying = ("project", str(project.pk))
    user = ("user", workspace.distinct_id(message.user_id))
    by_reason: dict[str, list[Subject]] = {
        Reason.PROJECT_CAP_REACHED: [paying],
        Reason.USER_CAP_REACHED: [user],
    }
    return by_reason.get(_reason(message), [WHOLE_ACCOUNT, paying, user])


def _answers(key: ThreadKey) -> dict[str, Notice]:
    answers = Notice.objects.filter(**key._asdict(), kind=Notice.Kind.ANSWER)
    return {notice.key: notice for notice in answers}


def _task_history(
    task: CodingTask, usage: Sequence[ModelUsage], answers: Mapping[str, Notice]
) -> TaskHistory:
    by_run: dict[UUID | str, list[ModelUsage]] = defaultdict(list)
    for each in usage:
        by_run[each.made_for].append(each)
    runs = sorted(task.runs.all(), key=lambda run: run.created_at)
    return TaskHistory(
        task,
        tuple(RunHistory(run, tuple(by_run[run.pk]), answers.get(answer_key(run))) for run in runs),
    )


def _totals(usage: Sequence[ModelUsage]) -> tuple[ModelTotal, ...]:
    by_model: dict[tuple[str, str], list[ModelUsage]] = defaultdict(list)
    for each in usage:
        by_model[each.product, each.model].append(each)
    totals = [
        ModelTotal(
            product,
            model,
            *(
                sum(getattr(each, name) for each in rows)
                for name in (
                    "generations",
                    "input_tokens",
                    "output_tokens",
                    "cached_tokens",
                    "credits_micro",
                )
            ),
        )
        for (product, model), rows in by_model.items()
    ]
    return tuple(sorted(totals, key=lambda total: (-total.credits_micro, total.model)))

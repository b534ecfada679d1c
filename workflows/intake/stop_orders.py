"""Orders to stop: the word "stop", a button or the slash command ends a person's own work.

Participants of a task can stop it, too. Others are told whose work it is.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from billing.reports.usage import usage_of_task_runs, usage_of_traces
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.publishing.claims import to_be_pushed
from coding_tasks.reading.assignments import trace_of
from coding_tasks.threads import active_task, lock_active_task
from projects.models import SlackWorkspace
from quota.resources import format_credits
from workflows import closing, notices, wording
from workflows.intake import follow_ups
from workflows.mention_types import workflow_id
from workflows.messages import run_buttons
from workflows.models import FollowUp, Mention, Notice, ThreadReply
from workflows.requests import is_stop, message_of, of_thread
from workflows.slack.block_kit import Block
from workflows.stopping.work import Stopped, stop_work
from workflows.temporal import client

_MOST_THREADS = 20
"""How many threads one command ends, so that it can answer within three seconds."""


@dataclass(frozen=True)
class Order:
    """Who wants work to stop, in which thread, and when: `ts` is a time in Slack's format."""

    workspace: SlackWorkspace
    channel_id: str
    thread_ts: str
    ts: str
    user_id: str

    @property
    def workspace_id(self) -> int:
        """The workspace's primary key."""
        return self.workspace.pk


def obey(message: Mention) -> None:
    """End the author's work in the thread, and say once what was stopped."""
    thread = (message.workspace, message.channel_id, message.thread_ts)
    order = Order(*thread, message.ts, message.user_id)
    mark = f"stopped by the message {order.ts}"
    mentions = _close_own(order, mark)
    workflows = _workflows_of(mentions)
    with transaction.atomic():
        stopped = _stop_own_task(order, mark, workflows)
        owner_id = None if stopped or mentions else _other_owner(order)
        words = _words(order, mentions, stopped, owner_id)
        if closing.conclude(message, Mention.State.STOPPED, _outcome(mentions, stopped)):
            key = f"stop:{message.pk}" if owner_id is None else _refusal_key(order)
            blocks = _blocks(words, mentions, stopped, mark)
            notices.send_soon(notices.claim(key, Notice.Kind.STOP, message, words, blocks=blocks))
    client.cancel_all(workflows | ({stopped.task.workflow_id} if stopped else set()))


def obey_click(run: TaskRun, user_id: str, ts: str) -> None:
    """End the work whose stop button was clicked at `ts`, as if its author had written "stop".

    If the work is somebody else's or has ended already, only the person who clicked is told.
    """
    task = run.task
    if task.workspace is None:
        return
    order = Order(task.workspace, task.channel_id, task.thread_ts, ts, user_id)
    if not task.accepts(user_id):
        words = wording.not_yours_to_stop(user_id, owner_id=task.owner_slack_user_id)
        _tell_alone(run, _refusal_key(order), words, user_id)
        return
    mark = f"stopped by a click at {ts}"
    mentions = _close_own(order, mark) if run.state in TaskRun.UNFINISHED else []
    workflows = _workflows_of(mentions)
    with transaction.atomic():
        lock_active_task(order.workspace, order.channel_id, order.thread_ts)
        at_work = TaskRun.objects.filter(pk=run.pk, state__in=TaskRun.UNFINISHED).exists()
        stopped = _stop_own_task(order, mark, workflows) if at_work else None
        if stopped is not None or mentions:
            words = _words(order, mentions, stopped, None)
            key = f"stop:{run.pk}"
            blocks = _blocks(words, mentions, stopped, mark)
            about = message_of(run)
            told = notices.claim(key, Notice.Kind.STOP, about, words, blocks=blocks)
            notices.send_soon(told)
        else:
            words = wording.stop_button_used(user_id)
            _tell_alone(run, f"stop-used:{run.pk}:{user_id}", words, user_id)
    client.cancel_all(workflows | ({stopped.task.workflow_id} if stopped else set()))


def obey_command(workspace: SlackWorkspace, channel_id: str, user_id: str, ts: str) -> int:
    """End the user's work in every thread of a channel; return in how many threads it ended.

    Each of these threads is told once, as after a click on the stop button.
    """
    threads = _threads_with_work(workspace, channel_id, user_id)
    orders = [Order(workspace, channel_id, thread_ts, ts, user_id) for thread_ts in threads]
    ended = [_end_own_work(order, f"stopped by a command at {ts}") for order in orders]
    client.cancel_all({each for workflows in ended if workflows for each in workflows})
    return sum(workflows is not None for workflows in ended)


def obey_session_stop(order: Order) -> None:
    """End the user's work in the thread of an agent session that was stopped with Slack's button.

    If it is somebody else's work, only the person who clicked is told, once. A redelivery does
    nothing.
    """
    if Notice.objects.filter(key=_key(order)).exists():
        return
    workflows = _end_own_work(order, f"stopped by Slack's button at {order.ts}")
    if workflows is not None:
        client.cancel_all(workflows)
        return
    owner_id = _other_owner(order)
    if owner_id is not None:
        words = wording.not_yours_to_stop(order.user_id, owner_id=owner_id)
        key = _refusal_key(order)
    else:
        words, key = wording.stop_button_used(order.user_id), _key(order)
    notices.send_soon(notices.claim(key, Notice.Kind.STOP, order, words, only_to_user=True))


def _threads_with_work(workspace: SlackWorkspace, channel_id: str, user_id: str) -> list[str]:
    """Return the threads of a channel that may have work of the user, the newest first."""
    tasks = CodingTask.objects.filter(
        workspace=workspace,
        owner_slack_user_id=user_id,
        channel_id=channel_id,
        state=CodingTask.State.ACTIVE,
    )
    mentions = Mention.objects.filter(
        workspace=workspace, user_id=user_id, channel_id=channel_id, state__in=Mention.OPEN
    )
    found = {
        *tasks.order_by("-created_at").values_list("thread_ts", flat=True)[:_MOST_THREADS],
        *mentions.order_by("-received_at").values_list("thread_ts", flat=True)[:_MOST_THREADS],
    }
    return sorted(found, key=Decimal, reverse=True)


@transaction.atomic
def _end_own_work(order: Order, mark: str) -> set[str] | None:
    """End the user's work in one thread; return the workflows to cancel, or None without work."""
    mentions = _close_own(order, mark)
    workflows = _workflows_of(mentions)
    stopped = _stop_own_task(order, mark, workflows)
    if stopped is None and not mentions:
        return None
    words = _words(order, mentions, stopped, None)
    blocks = _blocks(words, mentions, stopped, mark)
    told = notices.claim(_key(order), Notice.Kind.STOP, order, words, blocks=blocks)
    notices.send_soon(told)
    return workflows | ({stopped.task.workflow_id} if stopped else set())


def _tell_alone(run: TaskRun, key: str, words: str, user_id: str) -> None:
    told = notices.claim(
        key, Notice.Kind.STOP, message_of(run), words, user_id=user_id, only_to_user=True
    )
    notices.send_soon(told)


def _close_own(order: Order, mark: str) -> list[Mention]:
    """Close the author's open requests from before the order; return those that it closed."""
    for mention in _own_open(order):
        closing.close(mention.pk, Mention.State.STOPPED, mark)
    return list(of_thread(order).filter(state=Mention.State.STOPPED, outcome=mark))


def _workflows_of(mentions: Iterable[Mention]) -> set[str]:
    return {workflow_id(each.team_id, each.channel_id, each.ts) for each in mentions}


def _own_open(order: Order) -> list[Mention]:
    """Return the author's open requests in the thread from before the order.

    The request that began a task which the author may write to is among them.
    """
    task = active_task(order.workspace, order.channel_id, order.thread_ts)
    began = Q(workflow_id=task.workflow_id) if task and task.accepts(order.user_id) else Q()
    mine = of_thread(order).filter(Q(user_id=order.user_id) | began, state__in=Mention.OPEN)
    return [
        each for each in mine if Decimal(each.ts) < Decimal(order.ts) and not is_stop(each.text)
    ]


def _stop_own_task(order: Order, why: str, workflows: Set[str]) -> Stopped | None:
    """Stop the task, if the author may, and its workflow is in `workflows` or has earlier work."""
    task = lock_active_task(order.workspace, order.channel_id, order.thread_ts)
    if task is None or not task.accepts(order.user_id):
        return None
    if task.workflow_id not in workflows and not _has_work_from_before(order, task):
        return None
    stopped = stop_work(task, why)
    if stopped is not None:
        _reconsider_later_messages(order, task, why)
    return stopped


def _has_work_from_before(order: Order, task: CodingTask) -> bool:
    """Return whether the task works on, or will work on, what was written before the order."""
    at_work = task.runs.filter(state__in=TaskRun.UNFINISHED).values_list("message_ts", flat=True)
    waiting = FollowUp.objects.filter(
        workflow_id=task.workflow_id, state__in=FollowUp.WAITING
    ).values_list("ts", flat=True)
    pushed = to_be_pushed(task).values_list("run__message_ts", flat=True)
    return any(Decimal(each) < Decimal(order.ts) for each in [*at_work, *waiting, *pushed])


def _reconsider_later_messages(order: Order, task: CodingTask, why: str) -> None:
    """Leave messages written after the order, but received before it, to the sweeps.

    The order doesn't apply to them. A message that mentions the bot starts over, even if its run
    had begun. For any other message that waited, its author is told how to go on.
    """
    stopped = task.runs.filter(state=TaskRun.State.STOPPED, error=why).values("message_ts")
    ended = FollowUp.objects.filter(
        Q(state=FollowUp.State.DROPPED, outcome=why)
        | Q(state=FollowUp.State.HANDLED, addressed=True, ts__in=stopped),
        workflow_id=task.workflow_id,
    )
    for each in ended:
        if Decimal(each.ts) < Decimal(order.ts):
            continue
        FollowUp.objects.filter(pk=each.pk).delete()
        if each.addressed:
            follow_ups.restart_mention(each)
        else:
            ThreadReply.objects.get_or_create(
                workspace_id=each.workspace_id,
                channel_id=each.channel_id,
                ts=each.ts,
                defaults={
                    "thread_ts": each.thread_ts,
                    "user_id": each.user_id,
                    "text": each.text,
                },
            )


def _key(order: Order) -> str:
    """Return the key of the notice about an obeyed order that is not a message."""
    return f"stop:{order.workspace_id}:{order.channel_id}:{order.thread_ts}:{order.ts}"


def _refusal_key(order: Order) -> str:
    """Return the key of the notice about somebody else's work: one for each person and thread."""
    thread = f"{order.workspace_id}:{order.channel_id}:{order.thread_ts}"
    return f"stop-refused:{thread}:{order.user_id}"


def _words(
    order: Order, mentions: Sequence[Mention], stopped: Stopped | None, owner_id: str | None
) -> str:
    bot_name = settings.BOT_NAME
    if stopped is not None or mentions:
        return wording.stopped(
            order.user_id,
            credits=_used(order, mentions, stopped),
            in_flight=stopped is not None and stopped.in_flight,
            pushing=stopped is not None and stopped.pushing,
            bot_name=bot_name,
        )
    if owner_id is not None:
        return wording.not_yours_to_stop(order.user_id, owner_id=owner_id)
    return wording.nothing_to_stop(order.user_id)


def _blocks(
    words: str, mentions: Sequence[Mention], stopped: Stopped | None, mark: str
) -> list[Block]:
    """Return the message about a stop, with buttons to go on with what was stopped."""
    if stopped is not None:
        run = stopped.task.runs.filter(state=TaskRun.State.STOPPED, error=mark)
        newest = run.order_by("created_at").last()
        if newest is not None:
            go_on, again = run_buttons.go_on(newest.pk), run_buttons.start_run_again(newest.pk)
            return run_buttons.below(words, go_on, again)
    elif mentions:
        newest_mention = max(mentions, key=lambda each: Decimal(each.ts))
        return run_buttons.below(words, run_buttons.start_mention_again(newest_mention.pk))
    return []


def _outcome(mentions: Sequence[Mention], stopped: Stopped | None) -> str:
    return "it stopped the work" if stopped is not None or mentions else "there was nothing to stop"


def _other_owner(order: Order) -> str | None:
    """Return the owner of the work in the thread, if it is somebody else's."""
    task = active_task(order.workspace, order.channel_id, order.thread_ts)
    if task is not None and not task.accepts(order.user_id):
        return task.owner_slack_user_id
    others = of_thread(order).filter(state__in=Mention.OPEN).exclude(user_id=order.user_id)
    return others.order_by("received_at").values_list("user_id", flat=True).first()


def _used(order: Order, mentions: Iterable[Mention], stopped: Stopped | None) -> str | None:
    """Return the credits used so far, formatted, or None if none were used."""
    traces = {each.trace_id for each in mentions}
    project_id = order.workspace.project_in(order.channel_id).pk
    micro = 0
    if stopped is not None:
        task = stopped.task
        traces.add(trace_of(task.workflow_id))
        project_id = task.project_id
        micro += sum(usage_of_task_runs(task.runs.values_list("pk", flat=True)).values())
    micro += sum(usage_of_traces([project_id], traces).values())
    return format_credits(micro) if micro else None

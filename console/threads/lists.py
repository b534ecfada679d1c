"""Lists of threads: what was asked in each, and what it cost.

The number of queries does not depend on how many threads there are.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.reports.usage import usage_of_task_runs, usage_of_traces
from coding_tasks.models import CodingTask, TaskRun
from console.threads.lookup import MAX_MESSAGES, ThreadKey, key_of, messages_in
from projects.models import ChannelProject, SlackWorkspace
from workflows.models import FollowUp, Mention
from workflows.requests import request_text


@dataclass(frozen=True, slots=True)
class ThreadSummary:
    """One line of a list of threads."""

    key: ThreadKey
    workspace: SlackWorkspace
    title: str
    latest: datetime
    requests: int
    refused: int
    credits_micro: int


def threads_of_user(user_id: str) -> list[ThreadSummary]:
    """Return the threads of a Slack user's latest messages, newest first."""
    by_user = {"user_id": user_id}
    messages: list[Mention | FollowUp] = [
        *messages_in(Mention.objects.filter(**by_user))[:MAX_MESSAGES],
        *messages_in(FollowUp.objects.filter(**by_user))[:MAX_MESSAGES],
    ]
    by_thread: dict[ThreadKey, list[Mention | FollowUp]] = defaultdict(list)
    for message in messages:
        by_thread[key_of(message)].append(message)
    return _summaries(by_thread)


def summaries(keys: Sequence[ThreadKey]) -> list[ThreadSummary]:
    """Return the summaries of these threads, newest first."""
    by_thread: dict[ThreadKey, list[Mention | FollowUp]] = {key: [] for key in keys}
    wanted = {
        "channel_id__in": [key.channel_id for key in keys],
        "thread_ts__in": [key.thread_ts for key in keys],
    }
    messages: list[Mention | FollowUp] = [
        *messages_in(Mention.objects.filter(**wanted)),
        *messages_in(FollowUp.objects.filter(**wanted)),
    ]
    for message in messages:
        if key_of(message) in by_thread:
            by_thread[key_of(message)].append(message)
    return _summaries({key: messages for key, messages in by_thread.items() if messages})


def _summaries(
    by_thread: Mapping[ThreadKey, Sequence[Mention | FollowUp]],
) -> list[ThreadSummary]:
    tasks = CodingTask.objects.filter(
        workspace__in={key.workspace_id for key in by_thread},
        channel_id__in={key.channel_id for key in by_thread},
        thread_ts__in=[key.thread_ts for key in by_thread],
    )
    titles: dict[ThreadKey, str] = {}
    threads: dict[UUID, ThreadKey] = {}
    projects = {
        message.workspace.project_id for messages in by_thread.values() for message in messages
    }
    projects |= set(
        ChannelProject.objects.filter(
            workspace__in={key.workspace_id for key in by_thread},
            channel_id__in={key.channel_id for key in by_thread},
        ).values_list("project_id", flat=True)
    )
    for pk, project_id, workspace_id, channel_id, thread_ts, title in tasks.order_by(
        "-created_at"
    ).values_list("pk", "project_id", "workspace_id", "channel_id", "thread_ts", "title"):
        projects.add(project_id)
        key = ThreadKey(workspace_id, channel_id, thread_ts)
        threads[pk] = key
        titles[key] = title
    runs = dict(TaskRun.objects.filter(task__in=list(threads)).values_list("pk", "task_id"))
    used: dict[ThreadKey, int] = defaultdict(int)
    for run, micro in usage_of_task_runs(runs).items():
        used[threads[runs[run]]] += micro
    traces = {
        message.trace_id: key
        for key, messages in by_thread.items()
        for message in messages
        if isinstance(message, Mention)
    }
    for trace, micro in usage_of_traces(projects, traces).items():
        used[traces[trace]] += micro
    found = [
        ThreadSummary(
            key=key,
            workspace=messages[0].workspace,
            title=titles.get(key) or request_text(min(messages, key=lambda each: each.received_at)),
            latest=max(message.received_at for message in messages),
            requests=len(messages),
            refused=sum(message.state == "refused" for message in messages),
            credits_micro=used[key],
        )
        for key, messages in by_thread.items()
    ]
    return sorted(found, key=lambda summary: summary.latest, reverse=True)

"""The pages that show where a thread's credits went and why a mention was refused."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import redirect

from billing.reports.apportionment import displayed
from console.report_page import report_page, require
from console.report_permissions import ORGANIZATION_USAGE, THREADS
from console.threads.history import thread_history
from console.threads.lists import summaries, threads_of_user
from console.threads.lookup import ThreadKey, find_threads
from console.threads.search import Message, parse_query
from projects.slack.names import SlackId, names_of
from workflows.admin import workflow_link
from workflows.models import Mention


def threads_page(request: HttpRequest) -> HttpResponseBase:
    """Find a thread by its permalink, its channel and ts, or a user who asked in it."""
    require(request, THREADS)
    query = request.GET.get("q", "").strip()[:500]
    wanted = parse_query(query) if query else None
    found = []
    if isinstance(wanted, Message):
        keys = find_threads(wanted)
        if len(keys) == 1:
            return redirect("thread", *keys[0])
        found = summaries(keys)
    elif wanted is not None:
        found = threads_of_user(wanted.user_id)
    context = {
        "title": "Slack threads",
        "query": query,
        "understood": wanted is not None,
        "threads": found,
        "rows": _with_amounts(found),
        "refused": sum(summary.refused for summary in found),
        "credits_micro": sum(summary.credits_micro for summary in found),
        "slack_user": getattr(wanted, "user_id", None),
    }
    return report_page(request, "console/threads.html", context)


def _with_amounts(rows: Sequence[Any]) -> list[tuple[Any, str]]:
    """Return rows with their credits, rounded so that the rows of a table add up."""
    return list(zip(rows, displayed([row.credits_micro for row in rows]), strict=True))


def thread_page(
    request: HttpRequest, workspace_id: int, channel_id: str, thread_ts: str
) -> HttpResponseBase:
    """Show one thread."""
    require(request, THREADS)
    thread = thread_history(ThreadKey(workspace_id, channel_id, thread_ts))
    if thread is None:
        raise Http404
    if not request.user.has_perm("workflows.view_followup"):
        mentions = (each for each in thread.requests if isinstance(each.message, Mention))
        thread = replace(thread, requests=tuple(mentions))
    workspace_id = thread.workspace.pk
    ids = {each.message.user_id for each in thread.requests} | {channel_id}
    names = names_of(SlackId(workspace_id, each) for each in ids)
    workflows = {each.message.workflow_id for each in thread.requests if each.message.workflow_id}
    workflows.update(each.task.workflow_id for each in thread.tasks)
    context = {
        "title": f"Thread {channel_id}/{thread_ts}",
        "thread": thread,
        "models": _with_amounts(thread.models),
        "requests": [
            (each, names.get(SlackId(workspace_id, each.message.user_id), ""))
            for each in thread.requests
        ],
        "channel": names.get(SlackId(workspace_id, channel_id), channel_id),
        "workflows": [workflow_link(workflow_id) for workflow_id in sorted(workflows)],
        "start_credits": settings.START_CREDITS,
        "may_see_usage": request.user.has_perms(ORGANIZATION_USAGE),
    }
    return report_page(request, "console/thread.html", context)

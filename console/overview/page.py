"""The first page. Each part needs its own permissions, and is left out without them."""

from datetime import UTC, datetime, time
from typing import Any

from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode

from coding_tasks.turns.agent_readiness import agent_workers
from console.overview.attention import concerns
from console.overview.limited import standings, usage_link
from console.overview.spending import ORGANIZATIONS, spending, spending_chart
from console.overview.spending_csv import TABLES
from console.report_page import report_page
from console.report_permissions import ORGANIZATION_USAGE, SETUP, THREADS
from console.setup.steps import steps
from console.usage.breakdown import breakdown
from console.usage.dimensions import MODELS, USERS
from projects.slack.names import SlackId, names_of
from workflows.models import Mention

REFUSALS_SHOWN = 10


def overview_page(request: HttpRequest) -> TemplateResponse:
    """Show who is limited, what was used, who was refused today, and what needs attention."""
    user, now = request.user, timezone.now()
    shown: dict[str, Any] = {"title": "Overview", "now": now}
    limited = standings(user, now)
    if limited is not None:
        shown["limited"] = limited
        shown["standings"] = [
            (row, usage_link(user, row.organization, row.resource)) for row in limited.rows
        ]
    if user.has_perms(ORGANIZATION_USAGE):
        spent = spending(now)
        shown["spent"] = spent
        shown["charts"] = {"chart-spending": spending_chart(spent)}
        month = urlencode({"month": f"{spent.this.month:%Y-%m}"})
        shown["csv"] = {
            table: f"{reverse('admin:spending_csv', args=[table])}?{month}" for table in TABLES
        }
        shown["organizations"] = breakdown(spent.usage.organizations, ORGANIZATIONS)
        if user.has_perm("billing.view_usageevent"):
            shown["users"] = breakdown(spent.usage.users, USERS)
            shown["models"] = breakdown(spent.usage.models, MODELS)
    if user.has_perm("workflows.view_mention"):
        shown["refusals"] = _refusals_of_today(now)
    shown["concerns"] = concerns(user, now)
    if user.has_perms(SETUP):
        found = steps(now, ask=False)
        shown["steps_all"], shown["steps_done"] = len(found), sum(step.is_done for step in found)
        shown["next_step"] = next((step for step in found if not step.is_done), None)
    if user.has_perm("coding_tasks.view_projectagent"):
        shown["agent_workers"] = agent_workers()
    shown["may_see_usage"] = user.has_perms(ORGANIZATION_USAGE)
    shown["may_see_threads"] = user.has_perms(THREADS)
    return report_page(request, "console/overview.html", shown)


def _refusals_of_today(now: datetime) -> dict[str, Any]:
    midnight = datetime.combine(now.astimezone(UTC).date(), time(), UTC)
    refused = Mention.objects.filter(state=Mention.State.REFUSED, received_at__gte=midnight)
    latest = list(
        refused.select_related("workspace__project__organization")
        .defer("text", "workspace__bot_token")
        .order_by("-received_at")[: REFUSALS_SHOWN + 1]
    )
    count = len(latest) if len(latest) <= REFUSALS_SHOWN else refused.count()
    shown = latest[:REFUSALS_SHOWN]
    names = names_of(SlackId(mention.workspace_id, mention.user_id) for mention in shown)
    named = [
        (mention, names.get(SlackId(mention.workspace_id, mention.user_id), mention.user_id))
        for mention in shown
    ]
    return {"count": count, "latest": named, "midnight": midnight}

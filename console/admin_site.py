"""The admin site. Its first page shows who is refused and why, and whether agents can work."""

from functools import wraps
from typing import Any

from django.contrib.admin import AdminSite
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.decorators import method_decorator

from coding_tasks.agent_readiness import agent_workers
from console import report_permissions
from console.reasons import in_words
from projects.log_in_throttle import throttled
from quota.models import SetMember
from quota.published.limited_set import expires_at
from workflows.models import Mention

LIMITED_SHOWN = 20
REFUSALS_SHOWN = 10
_PARTS_OF_DATES = ("__year", "__month", "__day")


class TollgateAdminSite(AdminSite):
    """Django's admin under Tollgate's name."""

    site_header = "Tollgate"
    site_title = "Tollgate"
    index_title = "AI credits"
    site_url = None
    index_template = "console/admin_index.html"

    @method_decorator(throttled)
    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Log in, with a limit on failed attempts."""
        return super().login(request, extra_context)

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Answer 400 to query parameters that would make Django's own lists fail."""

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            for name, values in request.GET.lists():
                longest = 4 if name.endswith(_PARTS_OF_DATES) else None
                if any("\0" in value or (longest and len(value) > longest) for value in values):
                    raise BadRequest(f"{name} has a value that cannot be looked up")
            answer: HttpResponse = view(request, *args, **kwargs)
            return answer

        return super().admin_view(guarded, cacheable)

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Show limited projects, refused mentions and agent workers above the list of pages."""
        shown: dict[str, Any] = {}
        if request.user.has_perm("quota.view_setmember"):
            shown["limited"] = _limited()
        if request.user.has_perm("workflows.view_mention"):
            shown["refusals"] = _refusals()
        if request.user.has_perm("coding_tasks.view_projectagent"):
            shown["agent_workers"] = agent_workers()
        shown["may_see_usage"] = request.user.has_perms(report_permissions.ORGANIZATION_USAGE)
        shown["may_see_threads"] = request.user.has_perms(report_permissions.THREADS)
        return super().index(request, shown | (extra_context or {}))


def _limited() -> list[dict[str, Any]]:
    """Return the projects limited now, latest first, and when each block lifts by itself."""
    members = (
        SetMember.objects.filter(limited_until__gt=timezone.now().timestamp())
        .select_related("project__organization")
        .order_by("-since", "-changed_at")[:LIMITED_SHOWN]
    )
    return [
        {
            "member": member,
            "until": expires_at(member.limited_until),
            "why": in_words(member.reason),
        }
        for member in members
    ]


def _refusals() -> list[Mention]:
    """Return the latest refused mentions."""
    refused = Mention.objects.filter(state=Mention.State.REFUSED)
    return list(
        refused.select_related("workspace__project__organization")
        .defer("text", "workspace__bot_token")
        .order_by("-received_at")[:REFUSALS_SHOWN]
    )

"""`GET /api/projects/<id>/usage/`: where did the credits go?"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.credits import exact
from billing.reports import schema
from billing.reports.usage import Grouping, UsageGroup, usage_of_project
from projects import query
from projects.authentication.permissions import covered_project, has_any_scope
from projects.authentication.schemes import (
    ProjectCredentialAuthentication,
    ServiceTokenAuthentication,
    SessionPrincipalAuthentication,
)
from projects.principal import BILLING_READ, Principal

DEFAULT_DAYS = 30
MAXIMUM_GROUPS = 10_000


class ProjectUsageView(APIView):
    """A project's usage over some days, exactly as in the ledger."""

    authentication_classes = [
        ServiceTokenAuthentication,
        ProjectCredentialAuthentication,
        SessionPrincipalAuthentication,
    ]
    permission_classes = [has_any_scope(BILLING_READ)]

    @extend_schema(**schema.PROJECT_USAGE)
    def get(self, request: Request, project_id: int) -> Response:
        """Return one result for each bucket and group, and the sum of each bucket."""
        principal = request.user
        assert isinstance(principal, Principal), "the permission guarantees this"
        project = covered_project(principal, project_id)
        since, until = _days(request)
        groupings = _groupings(query.text(request, "group_by") or "")
        found = usage_of_project(
            project.id,
            project.organization_id,
            since,
            until,
            groupings,
            at_most=MAXIMUM_GROUPS + 1,
        )
        if len(found) > MAXIMUM_GROUPS:
            raise ValidationError(
                {"group_by": f"More than {MAXIMUM_GROUPS:,} groups. Ask for fewer days or groups."}
            )
        return Response(
            {
                "project_id": project.id,
                "organization_id": str(project.organization_id),
                "since": since.date().isoformat(),
                "until": until.date().isoformat(),
                "group_by": [str(grouping) for grouping in groupings],
                "results": [
                    {
                        **usage.key,
                        "resource": usage.resource,
                        "events": usage.events,
                        "credits": exact(usage.credits_micro),
                        **usage.tokens,
                    }
                    for usage in found
                ],
                "credits": _sums(found),
            }
        )


def _sums(found: Iterable[UsageGroup]) -> dict[str, str]:
    sums: dict[str, int] = {}
    for usage in found:
        if usage.resource is not None:
            sums[usage.resource] = sums.get(usage.resource, 0) + usage.credits_micro
    return {resource: exact(micro) for resource, micro in sums.items()}


def _days(request: Request) -> tuple[datetime, datetime]:
    tomorrow = timezone.now().astimezone(UTC).date() + timedelta(days=1)
    until = query.day(request, "until", tomorrow)
    since = query.day(request, "since", max(until - timedelta(days=DEFAULT_DAYS), query.FIRST_DAY))
    return _midnight(since), _midnight(until)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _groupings(text: str) -> list[Grouping]:
    names: list[Any] = text.split(",") if text else []
    known = list(Grouping)
    if len(set(names)) < len(names) or not set(names) <= set(known):
        raise ValidationError({"group_by": f"Must be some of {', '.join(known)}, each once."})
    return [Grouping(name) for name in names]

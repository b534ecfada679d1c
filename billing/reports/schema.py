"""OpenAPI descriptions of the endpoints that report usage."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiParameter
from rest_framework import serializers

from billing.reports.usage import Grouping
from projects.api_answers import PROJECT_ID, answers, mistake, problem, response_headers
from projects.query import DAY

_ORGANIZATION = "5f0c3a52-8f0e-4a3e-9d0b-1f2a7c4f9a10"


class UsageGroupSerializer(serializers.Serializer[Any]):
    """What one group used of one bucket, or of no bucket if nobody pays. Credits are exact."""

    day = serializers.DateField(required=False)
    product = serializers.CharField(required=False)
    model = serializers.CharField(required=False)
    user = serializers.CharField(required=False)
    run = serializers.UUIDField(required=False, allow_null=True)
    resource = serializers.CharField(allow_null=True)
    events = serializers.IntegerField()
    credits = serializers.DecimalField(max_digits=20, decimal_places=6)
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    cache_read_input_tokens = serializers.IntegerField()
    cache_creation_input_tokens = serializers.IntegerField()


class ProjectUsageSerializer(serializers.Serializer[Any]):
    """A project's usage from `since` (inclusive) to `until` (exclusive). Days are in UTC."""

    project_id = serializers.IntegerField()
    organization_id = serializers.UUIDField()
    since = serializers.DateField()
    until = serializers.DateField()
    group_by = serializers.ListField(child=serializers.CharField())
    results = UsageGroupSerializer(many=True)
    credits = serializers.DictField(
        child=serializers.DecimalField(max_digits=20, decimal_places=6),
        help_text="The sum of each bucket.",
    )


_PROJECT_USAGE_ANSWERS: dict[Any, Any] = {
    200: ProjectUsageSerializer,
    400: mistake("A parameter is invalid, or there are too many groups. The answer says which."),
    403: problem("The credential lacks the scope billing:read, or doesn't cover the project."),
    404: problem("There is no such project for this credential."),
}
_DAY = {"type": "string", "format": "date", "pattern": DAY}

PROJECT_USAGE: dict[str, Any] = {
    "operation_id": "project_usage_retrieve",
    "summary": "Where the credits went",
    "tags": ["usage"],
    # The schemes are described once, at the quota endpoint.
    "auth": [{"serviceToken": []}, {"projectCredential": []}, {"session": []}],
    "parameters": [
        PROJECT_ID,
        OpenApiParameter(
            "since",
            _DAY,
            description="Inclusive, from 2000-01-01 to 2999-12-31. Default: 30 days before until.",
        ),
        OpenApiParameter(
            "until",
            _DAY,
            description="Exclusive, from 2000-01-01 to 2999-12-31. Default: tomorrow. "
            "If it is not after since, the result is empty.",
        ),
        OpenApiParameter(
            "group_by",
            {
                "type": "array",
                "items": {"type": "string", "enum": list(Grouping)},
                "uniqueItems": True,
            },
            style="form",
            explode=False,
            description="What to group the usage by, separated by commas.",
        ),
        *response_headers(_PROJECT_USAGE_ANSWERS),
    ],
    "responses": answers(_PROJECT_USAGE_ANSWERS),
    "examples": [
        OpenApiExample(
            "By day and user",
            value={
                "project_id": 7,
                "organization_id": _ORGANIZATION,
                "since": "2026-11-01",
                "until": "2026-12-01",
                "group_by": ["day", "user"],
                "results": [
                    {
                        "day": "2026-11-23",
                        "user": "slack:T1:U1",
                        "resource": "ai_credits",
                        "events": 14,
                        "credits": "168.25",
                        "input_tokens": 168_000,
                        "output_tokens": 4_200,
                        "cache_read_input_tokens": 90_000,
                        "cache_creation_input_tokens": 12_000,
                    }
                ],
                "credits": {"ai_credits": "168.25"},
            },
            response_only=True,
            status_codes=["200"],
        )
    ],
}

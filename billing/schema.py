"""What the OpenAPI document says of billing's endpoints."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from billing.events import Refusal

_UUID = "0b6f7f9e-3c7e-4d50-9f0e-6d1f7a6a3f11"
_ORGANIZATION = "5f0c3a52-8f0e-4a3e-9d0b-1f2a7c4f9a10"


class UsageEventSerializer(serializers.Serializer):
    """One `$ai_generation` event. An event whose `hold_id` is another event's uuid corrects it."""

    uuid = serializers.UUIDField(help_text="Its identity for ever: booked at most once.")
    event = serializers.CharField(required=False, help_text="`$ai_generation`, if given.")
    timestamp = serializers.DateTimeField(help_text="When it was used; decides the period.")
    distinct_id = serializers.CharField(required=False)
    account = serializers.CharField(
        required=False, help_text="Organization and bucket; checked against the product."
    )
    group = serializers.CharField(
        required=False, help_text="The gateway Redis that held the call; absent: posted directly."
    )
    hold_id = serializers.UUIDField(required=False)
    debited_micro = serializers.IntegerField(
        required=False, help_text="Micro-credits that the group counts as spent."
    )
    properties = serializers.DictField()


class UsageBatchSerializer(serializers.Serializer):
    """At most 1,000 events and 5 MB. A bare list of events is accepted too."""

    batch = UsageEventSerializer(many=True)


class UsageResultSerializer(serializers.Serializer):
    """What became of one item."""

    uuid = serializers.UUIDField(allow_null=True)
    status = serializers.ChoiceField(["accepted", "duplicate", "conflict", "quarantined"])
    reason = serializers.ChoiceField([reason.value for reason in Refusal], allow_null=True)
    version = serializers.IntegerField(
        allow_null=True, help_text="The account's version after the booking."
    )


class UsageResultsSerializer(serializers.Serializer):
    """One result per item, in the order sent."""

    results = UsageResultSerializer(many=True)


class ProblemSerializer(serializers.Serializer):
    """Why nothing was done."""

    detail = serializers.CharField()


def mistake(description: str) -> OpenApiResponse:
    """Return the documentation of a refusal that says what is wrong, field by field."""
    return OpenApiResponse(OpenApiTypes.OBJECT, description)


def problem(description: str) -> OpenApiResponse:
    """Return the documentation of a refusal."""
    return OpenApiResponse(ProblemSerializer, description)


_EVENT = {
    "uuid": _UUID,
    "timestamp": "2026-11-23T08:00:00.123456Z",
    "distinct_id": "slack:T1:U1",
    "account": f"{_ORGANIZATION}:ai_credits",
    "group": "gateway:7d3b5c52-92d3-4a0e-8b3a-1c5b3b3b9f54",
    "hold_id": _UUID,
    "debited_micro": 12_000_000,
    "properties": {
        "$ai_billable": True,
        "ai_product": "slack_app",
        "$ai_model": "claude-sonnet-4-5",
        "$ai_provider": "anthropic",
        "$ai_input_tokens": 12_000,
        "$ai_output_tokens": 4_266,
        "$ai_total_cost_usd": "0.10",
        "organization_id": _ORGANIZATION,
        "project_id": 7,
        "task_run_id": "c9c4e0b1-3f38-4d5d-9b6a-6a1c0f1f6b52",
        "price_version": "genai-prices 0.0.40",
    },
}

USAGE_EVENTS: dict[str, Any] = {
    "operation_id": "usage_events_create",
    "request": UsageBatchSerializer,
    "responses": {
        200: UsageResultsSerializer,
        400: problem("Not a batch at all; nothing was booked."),
        401: problem("No service token."),
        413: problem("Too many events or bytes; nothing was booked."),
        415: problem("Neither JSON nor gzipped JSON."),
        429: problem("The database does not keep up; nothing was booked. See Retry-After."),
        503: problem("The database does not answer; nothing was booked. See Retry-After."),
    },
    "examples": [
        OpenApiExample("A generation", value={"batch": [_EVENT]}, request_only=True),
        OpenApiExample(
            "Booked, and set aside",
            value={
                "results": [
                    {"uuid": _UUID, "status": "accepted", "reason": None, "version": 812},
                    {
                        "uuid": "6a0f3a1c-51a5-4f0e-8f3e-0d0f6b7a9c21",
                        "status": "quarantined",
                        "reason": "project_unknown",
                        "version": None,
                    },
                ]
            },
            response_only=True,
            status_codes=["200"],
        ),
    ],
}


class InsufficientRemainingSerializer(serializers.Serializer):
    """What was left of an account when a call that nothing else held up did not fit into it."""

    organization_id = serializers.UUIDField()
    resource = serializers.CharField(max_length=40)
    remaining_micro = serializers.IntegerField(
        min_value=0, max_value=2**63 - 1, help_text="In micro-credits."
    )


class StandingSerializer(serializers.Serializer):
    """Whether the account is limited then."""

    limited = serializers.BooleanField()


INSUFFICIENT_REMAINING: dict[str, Any] = {
    "operation_id": "insufficient_remaining_create",
    "request": InsufficientRemainingSerializer,
    "responses": {
        200: StandingSerializer,
        400: mistake("Not what was asked for: says what, by field."),
        401: problem("No service token."),
        404: problem("There is no such account."),
        429: problem("The database does not keep up. See Retry-After."),
        503: problem("The database does not answer. See Retry-After."),
    },
    "examples": [
        OpenApiExample(
            "Less than half a credit",
            value={
                "organization_id": _ORGANIZATION,
                "resource": "ai_credits",
                "remaining_micro": 410_000,
            },
            request_only=True,
        ),
        OpenApiExample(
            "Limited", value={"limited": True}, response_only=True, status_codes=["200"]
        ),
    ],
}


class UsageGroupSerializer(serializers.Serializer):
    """What one group used of one bucket; of none where nobody pays. Credits are exact."""

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


class ProjectUsageSerializer(serializers.Serializer):
    """A project's usage from `since` to before `until`, days of UTC."""

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


PROJECT_USAGE: dict[str, Any] = {
    "operation_id": "project_usage_retrieve",
    # By name: the schemes are described once, where the quota endpoint uses them.
    "auth": [{"serviceToken": []}, {"projectCredential": []}, {"session": []}],
    "parameters": [
        OpenApiParameter("since", OpenApiTypes.DATE, description="Default: 30 days before until."),
        OpenApiParameter("until", OpenApiTypes.DATE, description="Exclusive. Default: tomorrow."),
        OpenApiParameter(
            "group_by", OpenApiTypes.STR, description="Some of day, product, model, user, run."
        ),
    ],
    "responses": {
        200: ProjectUsageSerializer,
        400: mistake("A parameter makes no sense, or there are too many groups: says which."),
        401: problem("No credential, or one that is not valid."),
        403: problem("The credential lacks the scope billing:read or leaves the project out."),
        404: problem("There is no such project for this credential."),
    },
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

"""OpenAPI descriptions of the endpoints that gateways call."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.utils import OpenApiExample
from rest_framework import serializers

from billing.ingestion.batches import MAXIMUM_BYTES, MAXIMUM_EVENTS
from billing.ingestion.events import QuarantineReason
from projects.api_answers import answers, problem, response_headers
from quota.resources import RESOURCES

_UUID = "0b6f7f9e-3c7e-4d50-9f0e-6d1f7a6a3f11"
_ORGANIZATION = "5f0c3a52-8f0e-4a3e-9d0b-1f2a7c4f9a10"


_ITEM: dict[str, Any] = {
    "description": "One `$ai_generation` event. An invalid item is quarantined. The rest of its "
    "batch is still booked.",
    "anyOf": [
        {
            "title": "UsageEvent",
            "type": "object",
            "properties": {
                "uuid": {
                    "type": "string",
                    "format": "uuid",
                    "description": "The event's identity: it is booked at most once. Without it, "
                    "the event is quarantined as `uuid_invalid`. An operator can still book it, "
                    "with a UUID derived from its payload.",
                },
                "event": {"type": "string", "enum": ["$ai_generation"]},
                "timestamp": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When the call was made. It determines the period. At most 366 "
                    "days in the past and 10 minutes in the future.",
                },
                "distinct_id": {"type": "string"},
                "account": {
                    "type": "string",
                    "description": "Organization and bucket. Checked against the product.",
                },
                "group": {
                    "type": "string",
                    "maxLength": 100,
                    "description": "The gateway Redis that held the call. Absent if there was no "
                    "hold.",
                },
                "hold_id": {
                    "type": "string",
                    "format": "uuid",
                    "description": "The event's own UUID, or that of another event, which this one "
                    "corrects. A correction gives back at most what its event still costs. Until "
                    "that event arrives, it is quarantined as `corrected_event_unknown`.",
                },
                "debited_micro": {
                    "type": "integer",
                    "format": "int64",
                    "description": "Micro-credits that the group counts as spent.",
                },
                "properties": {"type": "object", "additionalProperties": True},
            },
        },
        {"title": "AnythingElse", "description": "Quarantined as `not_an_event`."},
    ],
}
_ITEMS = {"type": "array", "items": _ITEM}


class UsageBatchSerializer(serializers.Serializer[Any]):
    """A list of events, or an object with `batch`. Only for OpenAPI: `BatchParser` parses them."""


class UsageBatchSchema(OpenApiSerializerExtension):
    """The OpenAPI schema of a batch."""

    target_class = UsageBatchSerializer

    def map_serializer(self, _auto_schema: Any, _direction: Any) -> dict[str, Any]:
        """Return the schema."""
        return {
            "description": f"At most {MAXIMUM_EVENTS:,} events and {MAXIMUM_BYTES:,} bytes, "
            "unpacked (otherwise 413). `Content-Encoding: gzip` is supported.",
            "required": ["batch"],  # only for the object; the second form is an array
            "anyOf": [{"type": "object", "properties": {"batch": _ITEMS}}, _ITEMS],
        }


class UsageResultSerializer(serializers.Serializer[Any]):
    """The result for one item."""

    uuid = serializers.UUIDField(allow_null=True)
    status = serializers.ChoiceField(["accepted", "duplicate", "conflict", "quarantined"])
    reason = serializers.ChoiceField([reason.value for reason in QuarantineReason], allow_null=True)
    version = serializers.IntegerField(
        allow_null=True, help_text="The account's version after the booking."
    )


class UsageResultsSerializer(serializers.Serializer[Any]):
    """One result per item, in the order sent."""

    results = UsageResultSerializer(many=True)


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

_USAGE_EVENTS_ANSWERS: dict[Any, Any] = {
    200: UsageResultsSerializer,
    400: problem("The body is not a batch. Nothing was booked."),
    401: problem("No service token."),
    413: problem("Too many events or bytes. Nothing was booked."),
    415: problem("Neither JSON nor gzipped JSON."),
    429: problem("The database is overloaded. Nothing was booked."),
    503: problem("The database is unavailable. Nothing was booked."),
}

USAGE_EVENTS: dict[str, Any] = {
    "operation_id": "usage_events_create",
    "summary": "Book usage events",
    "tags": ["usage"],
    "request": UsageBatchSerializer,
    "parameters": response_headers(_USAGE_EVENTS_ANSWERS),
    "responses": answers(_USAGE_EVENTS_ANSWERS),
    "examples": [
        OpenApiExample("A generation", value={"batch": [_EVENT]}, request_only=True),
        OpenApiExample(
            "One booked, one quarantined",
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


class WholeNumber(serializers.IntegerField):
    """An integer, not given as text, fraction or boolean."""

    def to_internal_value(self, data: Any) -> int:
        """Return the number."""
        if type(data) is not int:
            self.fail("invalid")
        return super().to_internal_value(data)


class InsufficientRemainingSerializer(serializers.Serializer[Any]):
    """What was left of an account when it could not pay for a call, with no other call held."""

    organization_id = serializers.UUIDField()
    resource = serializers.ChoiceField(list(RESOURCES))
    remaining_micro = WholeNumber(min_value=0, max_value=2**63 - 1, help_text="In micro-credits.")


class StandingSerializer(serializers.Serializer[Any]):
    """Whether the account is now limited."""

    limited = serializers.BooleanField()


_INSUFFICIENT_REMAINING_ANSWERS: dict[Any, Any] = {
    200: StandingSerializer,
    401: problem("No service token."),
    404: problem("There is no such account."),
    415: problem("Not JSON."),
    429: problem("The database is overloaded."),
}

INSUFFICIENT_REMAINING: dict[str, Any] = {
    "operation_id": "insufficient_remaining_create",
    "summary": "Report that too little is left for a call",
    "tags": ["quota"],
    "request": InsufficientRemainingSerializer,
    "parameters": response_headers(_INSUFFICIENT_REMAINING_ANSWERS),
    "responses": answers(_INSUFFICIENT_REMAINING_ANSWERS),
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

"""The OpenAPI description of this folder's endpoints, with examples."""

from typing import Any

from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    inline_serializer,
)
from rest_framework import serializers

from projects.api_answers import PROJECT_ID, answers, problem, response_headers
from projects.query import MAX_VERSION
from quota.reasons import Reason
from quota.resources import RESOURCES

_OK = {
    "limited": False,
    "state": "ok",
    "reason": None,
    "usage": 1250.25,
    "limit": 2000.0,
    "remaining": 749.75,
    "limited_until": None,
    "resets_at": "2026-12-01T00:00:00Z",
    "resets_at_local": "2026-12-01T00:00:00+00:00",
    "time_zone": "UTC",
    "mode": "hard",
    "credits_per_usd": 120.0,
}
_LIMITED = _OK | {
    "limited": True,
    "state": "limited",
    "reason": "limit_reached",
    "usage": 2000.0,
    "remaining": 0.0,
    "limited_until": "2026-12-01T00:00:00Z",
}
_NEVER_USED = _OK | {
    "usage": None,
    "limit": None,
    "remaining": None,
    "credits_per_usd": 100.0,
}


def _limits_example(name: str, ai_credits: dict[str, Any]) -> OpenApiExample:
    return OpenApiExample(
        name,
        response_only=True,
        status_codes=[200],
        value={
            "limited": {"ai_credits": ai_credits, "posthog_code_credits": _NEVER_USED},
            "organization_id": "0b0f7c1e-3f0a-4d52-9a41-2f6b8a5f9d10",
            "version": 812,
            "as_of": "2026-11-23T08:00:00Z",
        },
    )


def _refusal(status: int, name: str, detail: str) -> OpenApiExample:
    return OpenApiExample(
        name, response_only=True, status_codes=[str(status)], value={"detail": detail}
    )


_TIME = "RFC 3339, UTC."


class CapAllotment(serializers.Serializer[Any]):
    """A cap in micro-credits: what the group may ever spend within it, and what it booked."""

    cap_micro = serializers.IntegerField(help_text="What may be used in one period.")
    allotment_micro = serializers.IntegerField()
    booked_micro = serializers.IntegerField()


class CapsOfResource(serializers.Serializer[Any]):
    """The caps on calls of the project and, if a user was named, of that user."""

    version = serializers.IntegerField(
        help_text="Grows when anything but the group's own bookings changes an allotment."
    )
    run_micro = serializers.IntegerField(
        allow_null=True, help_text="What one run may use in all; null: not capped."
    )
    users = serializers.BooleanField(
        help_text="Whether to pass `user` before admitting a user's call."
    )
    scopes = serializers.DictField(
        child=CapAllotment(), help_text="By `project:<id>` and `user:<distinct_id>`."
    )


class QuotaOfResource(serializers.Serializer[Any]):
    """One resource in the answer of `quota_limits`."""

    limited = serializers.BooleanField(help_text="The one field every client may rely on.")
    state = serializers.ChoiceField(["ok", "warning", "grace", "limited", "unknown"])
    reason = serializers.ChoiceField(
        [reason.value for reason in Reason],
        allow_null=True,
        help_text="Why it is limited or in grace.",
    )
    usage = serializers.FloatField(
        allow_null=True, help_text="Credits used in the period; null: nothing was ever booked."
    )
    limit = serializers.FloatField(
        allow_null=True, help_text="Credits per period; null: unlimited, unless unknown."
    )
    remaining = serializers.FloatField(
        allow_null=True, help_text="Credits left, grants included; null: no limit."
    )
    limited_until = serializers.DateTimeField(
        allow_null=True, help_text=f"{_TIME} Null: not limited, or it does not lift by itself."
    )
    resets_at = serializers.DateTimeField(
        allow_null=True, help_text=f"{_TIME} When usage starts from zero again."
    )
    resets_at_local = serializers.DateTimeField(
        allow_null=True, help_text="`resets_at` in `time_zone`, with its offset."
    )
    time_zone = serializers.CharField(
        help_text="The IANA time zone in which the period ends at midnight: show dates in it."
    )
    mode = serializers.ChoiceField(["hard", "soft"])
    credits_per_usd = serializers.FloatField(
        help_text="Credits per dollar of provider cost, markup included."
    )
    account = serializers.CharField(required=False, help_text="Service callers only.")
    allotment_micro = serializers.IntegerField(
        required=False,
        allow_null=True,
        help_text="Service callers only. What the group may ever spend, in micro-credits; "
        "null: unlimited; absent: unknown.",
    )
    booked_micro = serializers.IntegerField(
        required=False, help_text="Service callers only. What the group's events ever booked."
    )
    valid_until = serializers.DateTimeField(
        required=False, allow_null=True, help_text="Service callers only. Ask again then."
    )
    ledger_epoch = serializers.CharField(required=False, help_text="Service callers only.")
    version = serializers.IntegerField(required=False, help_text="Service callers only.")
    caps = CapsOfResource(
        required=False, help_text="Service callers only. The caps on a call, if there are any."
    )


_VERSION = {"type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_VERSION}


def _etag(statuses: list[str]) -> OpenApiParameter:
    return OpenApiParameter(
        "ETag",
        str,
        OpenApiParameter.HEADER,
        response=statuses,
        description="Covers everything but `as_of`. Send it back as If-None-Match.",
    )


_LIMITS_ANSWERS: dict[Any, Any] = {
    200: inline_serializer(
        "QuotaLimits",
        {
            "limited": inline_serializer(
                "QuotaOfResources",
                {resource: QuotaOfResource() for resource in RESOURCES},
            ),
            "organization_id": serializers.UUIDField(),
            "version": serializers.IntegerField(
                help_text="Grows with every new decision about the organization."
            ),
            "as_of": serializers.DateTimeField(help_text=_TIME),
        },
    ),
    304: OpenApiResponse(description="Nothing changed since the given entity tag."),
    403: problem("The credential lacks a scope, or does not cover this project."),
    404: problem("There is no such project, or it is another organization's."),
    503: problem("No store can answer."),
}

QUOTA_LIMITS: dict[str, Any] = {
    "operation_id": "quota_limits",
    "summary": "What a project may still use",
    "description": "The projects of an organization share its limits and what is left of them. "
    "Every resource is listed. Amounts are credits.",
    "tags": ["quota"],
    "parameters": [
        PROJECT_ID,
        OpenApiParameter(
            "group", str, description="Service callers: the gateway's Redis, as name:epoch."
        ),
        OpenApiParameter(
            "user", str, description="Service callers: the `distinct_id` of a call, for its cap."
        ),
        OpenApiParameter(
            "If-None-Match",
            str,
            OpenApiParameter.HEADER,
            description="The entity tag of an earlier answer.",
        ),
        _etag(["200", "304"]),
        *response_headers(_LIMITS_ANSWERS),
    ],
    # Never 406: the answer is JSON whatever the client accepts.
    "responses": {
        status: answer for status, answer in answers(_LIMITS_ANSWERS).items() if status != 406
    },
    "examples": [
        _limits_example("Limited", _LIMITED),
        _limits_example("Not limited", _OK),
        _refusal(401, "Unknown credential", "The credential is unknown, expired or revoked."),
        _refusal(
            403,
            "Missing scope",
            "The credential needs the scope project:read or llm_gateway:read.",
        ),
        _refusal(403, "Another project", "The credential is scoped to another project."),
        _refusal(404, "Not found", "Not found."),
        _refusal(503, "Unknown", "The project's limits cannot be read right now."),
    ],
}

_CHANGE = inline_serializer(
    "QuotaChange",
    {
        "account": serializers.CharField(),
        "organization_id": serializers.UUIDField(),
        "project_id": serializers.IntegerField(),
        "resource": serializers.CharField(),
        "version": serializers.IntegerField(help_text="Of the feed."),
        "limited": serializers.BooleanField(),
    },
    many=True,
)

_CHANGES_ANSWERS: dict[Any, Any] = {
    200: inline_serializer(
        "QuotaChanges",
        {
            "version": serializers.IntegerField(help_text="The next cursor."),
            "reset": serializers.BooleanField(),
            "feed": serializers.UUIDField(),
            "revoked": serializers.ListField(
                child=serializers.CharField(), help_text="SHA-256 of credentials."
            ),
            "changes": _CHANGE,
        },
    ),
    401: problem("Not a service token."),
    503: problem("The database cannot answer."),
}

QUOTA_CHANGES: dict[str, Any] = {
    "operation_id": "quota_changes",
    "summary": "Whose quota changed, and which credentials were revoked",
    "description": "If the cursor is missing, too old, ahead of the feed or of another feed, the "
    "answer is a reset: forget everything and continue from the given version.",
    "tags": ["quota"],
    "parameters": [
        OpenApiParameter("since", _VERSION, description="The version of the previous answer."),
        OpenApiParameter("feed", str, description="The feed of the previous answer."),
        *response_headers(_CHANGES_ANSWERS),
    ],
    "responses": answers(_CHANGES_ANSWERS),
    "examples": [
        OpenApiExample(
            "One change",
            response_only=True,
            status_codes=[200],
            value={
                "version": 812,
                "reset": False,
                "feed": "6d0f1c53-6a0f-4b0e-9f0e-2a1c7be3b0aa",
                "revoked": [],
                "changes": [
                    {
                        "account": "0b0f7c1e-3f0a-4d52-9a41-2f6b8a5f9d10:ai_credits",
                        "organization_id": "0b0f7c1e-3f0a-4d52-9a41-2f6b8a5f9d10",
                        "project_id": 7,
                        "resource": "ai_credits",
                        "version": 812,
                        "limited": True,
                    }
                ],
            },
        ),
        OpenApiExample(
            "A cursor of another feed",
            response_only=True,
            status_codes=[200],
            value={
                "version": 812,
                "reset": True,
                "feed": "6d0f1c53-6a0f-4b0e-9f0e-2a1c7be3b0aa",
                "revoked": [],
                "changes": [],
            },
        ),
        _refusal(401, "Not the service", "Authentication credentials were not provided."),
        _refusal(503, "Unknown", "The project's limits cannot be read right now."),
    ],
}

"""`POST /oauth/introspect/`: what a credential is, and what its organization may still spend.

Only the gateway calls it. One answer carries both, so the first call with an unknown credential
costs the gateway one round trip.
"""

from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.parsers import FormParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from projects.api_answers import answers, mistake, problem, response_headers
from projects.authentication import introspection
from projects.authentication.permissions import IsService
from projects.authentication.schemes import ServiceTokenAuthentication
from projects.principal import Principal
from quota.state import QuotaUnknown, ServiceQuestion, service_fields, standings


class InvalidRequest(APIException):
    """A request without a token, in the error shape of OAuth 2.0."""

    status_code = 400

    def __init__(self) -> None:
        super().__init__({"error": "invalid_request", "error_description": "token is required"})


_ANSWERS: dict[Any, Any] = {
    200: inline_serializer(
        "Introspection",
        {
            "active": serializers.BooleanField(),
            "token_type": serializers.CharField(required=False),
            "scope": serializers.CharField(required=False),
            "exp": serializers.IntegerField(required=False, help_text="Unix seconds."),
            "client_id": serializers.CharField(required=False),
            "sub": serializers.CharField(required=False),
            "organization_id": serializers.UUIDField(required=False),
            "project_id": serializers.IntegerField(
                required=False,
                allow_null=True,
                help_text="The project, if the credential covers exactly one.",
            ),
            "project_ids": serializers.ListField(child=serializers.IntegerField(), required=False),
            "task_run_id": serializers.UUIDField(required=False, allow_null=True),
            "distinct_id": serializers.CharField(
                required=False, help_text="The user whose usage it is."
            ),
            "accepted_micro": serializers.IntegerField(
                required=False, help_text="The most that the task run may cost, in micro-credits."
            ),
            "products": serializers.ListField(child=serializers.CharField(), required=False),
            "token_kind": serializers.CharField(required=False),
            "resources": serializers.DictField(required=False),
        },
    ),
    400: mistake("No token was sent (RFC 6749)."),
    401: problem("No service token."),
    415: problem("Not a form."),
}


class IntrospectionView(APIView):
    """RFC 7662 token introspection, for OAuth access tokens and personal API keys."""

    authentication_classes = [ServiceTokenAuthentication]
    permission_classes = [IsService]
    parser_classes = [FormParser]

    @extend_schema(
        operation_id="introspect",
        tags=["OAuth"],
        parameters=response_headers(_ANSWERS),
        request={
            "application/x-www-form-urlencoded": inline_serializer(
                "Introspect",
                {
                    "token": serializers.CharField(min_length=1),
                    "group": serializers.CharField(
                        required=False, help_text="The gateway's Redis, as name:epoch."
                    ),
                },
            )
        },
        responses=answers(_ANSWERS),
        examples=[
            OpenApiExample(
                "The token of a task run",
                response_only=True,
                value={
                    "active": True,
                    "token_type": "Bearer",
                    "scope": "llm_gateway:read",
                    "exp": 1795424400,
                    "organization_id": "0b0f7c1e-3f0a-4d52-9a41-2f6b8a5f9d10",
                    "project_id": 7,
                    "project_ids": [7],
                    "task_run_id": "8d1f5a0e-5d8e-4f5c-9a53-0c3a4f7f6b21",
                    "distinct_id": "slack:T1:U1",
                    "products": ["slack_app"],
                    "token_kind": "oauth_run",
                    "resources": {
                        "ai_credits": {
                            "limited": False,
                            "account": "0b0f7c1e-3f0a-4d52-9a41-2f6b8a5f9d10:ai_credits",
                            "allotment_micro": 2000000000,
                            "booked_micro": 1250000,
                            "valid_until": "2026-12-01T00:00:00+00:00",
                            "ledger_epoch": "6f9c2f0e-8f7e-4f0e-b7f6-6a1f0c9c2d33",
                            "version": 812,
                        }
                    },
                },
            ),
            OpenApiExample("Anything else", response_only=True, value={"active": False}),
        ],
    )
    def post(self, request: Request) -> Response:
        """Describe the token, or return `{"active": false}` if it isn't valid now."""
        token = request.POST.get("token")
        if not token:
            raise InvalidRequest
        principal = introspection.find(token)
        described = introspection.describe(principal)
        if principal is not None:
            described["resources"] = _resources(principal, request.POST.get("group", ""))
        return Response(described)


def _resources(principal: Principal, group: str) -> dict[str, Any]:
    """Return what the organization may spend, by resource.

    The answer is the same for all its projects, because they share the credits. Returns nothing
    if it is unknown: the gateway treats a missing resource as unknown.
    """
    identity = next(iter(principal.projects.values()), None)
    if identity is None:
        return {}
    question = ServiceQuestion(group, principal.distinct_id)
    try:
        return {
            resource: service_fields(standing, identity.id, question)
            for resource, standing in standings(identity).resources.items()
        }
    except QuotaUnknown:
        return {}

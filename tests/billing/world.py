"""Events as the gateway sends them, and helpers to read billing's state."""

import json
import uuid
from datetime import datetime
from typing import Any

from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from billing.ingestion import ledger
from billing.ingestion.batches import parse_json
from billing.models import Account, UsageTotal
from projects.models import Organization, Project
from quota.models import QuotaState
from quota.resources import AI_CREDITS

CREDIT = 1_000_000
SERVICE = {"HTTP_AUTHORIZATION": "Bearer service-token-of-the-test-suite"}


def usage_event(
    project: Project,
    cost: Any = "0.10",
    *,
    at: datetime | None = None,
    properties: dict[str, Any] | None = None,
    **envelope: Any,
) -> dict[str, Any]:
    """Return the event of a call through the Slack product. 0.10 dollars are 12 credits."""
    event = {
        "uuid": str(uuid.uuid4()),
        "event": "$ai_generation",
        "timestamp": (at or timezone.now()).isoformat(),
        "distinct_id": "slack:T1:U1",
        "properties": {
            "$ai_billable": True,
            "ai_product": "slack_app",
            "$ai_model": "claude-sonnet-4-5",
            "$ai_provider": "anthropic",
            "$ai_input_tokens": 1200,
            "$ai_output_tokens": 300,
            "$ai_cache_read_input_tokens": 0,
            "$ai_cache_creation_input_tokens": 0,
            "$ai_total_cost_usd": cost,
            "$ai_latency": 1.25,
            "$ai_stream": True,
            "$ai_is_error": False,
            "$ai_http_status": 200,
            "$ai_trace_id": "trace-1",
            "$ai_usage_estimated": False,
            "$ai_service_tier": "standard",
            "organization_id": str(project.organization_id),
            "project_id": project.pk,
            "task_run_id": "c9c4e0b1-3f38-4d5d-9b6a-6a1c0f1f6b52",
            "price_version": "genai-prices 0.0.40",
        },
    }
    event["properties"] |= properties or {}
    return event | envelope


def book(*items: Any) -> list[ledger.Result]:
    """Book items after a round trip through JSON, like everything that is delivered."""
    return ledger.book(parse_json(json.dumps(items)))


def held(event: dict[str, Any], debited_micro: int, group: str = "gateway:epoch") -> dict[str, Any]:
    """Return the event with a hold and a debit of a gateway group."""
    properties = event["properties"]
    return event | {
        "account": f"{properties['organization_id']}:ai_credits",
        "group": group,
        "hold_id": event["uuid"],
        "debited_micro": debited_micro,
    }


def account_of(organization: Organization, resource: str = AI_CREDITS) -> Account:
    return Account.objects.get(organization=organization, resource=resource)


def published(organization: Organization, resource: str = AI_CREDITS):
    """Return the state that gates and gateways read."""
    return QuotaState.objects.get(organization=organization, resource=resource).published


def used(organization: Organization, resource: str = AI_CREDITS) -> int:
    """Return the sum of the running totals."""
    account = account_of(organization, resource)
    return sum(UsageTotal.objects.filter(account=account).values_list("usage_micro", flat=True))


class Deliveries:
    """Posts batches with the service token."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def post(self, body: Any, **headers: Any) -> HttpResponse:
        """Post a body. Anything but bytes and text is encoded as JSON."""
        if not isinstance(body, bytes | str):
            body = json.dumps(body)
        return self._client.post(
            "/api/usage_events/", body, content_type="application/json", **(SERVICE | headers)
        )

    def results(self, *events: Any) -> list[dict[str, Any]]:
        """Post a batch and return the result for each item."""
        response = self.post({"batch": list(events)})
        assert response.status_code == 200, response.content
        return response.json()["results"]

    def statuses(self, *events: Any) -> list[str]:
        """Post a batch and return the status of each item."""
        return [result["status"] for result in self.results(*events)]

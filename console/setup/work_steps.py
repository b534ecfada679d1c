"""The steps that let work begin: the model provider, the first project, the first limit."""

from datetime import datetime, timedelta

import requests
from django.conf import settings
from django.urls import reverse

from billing.models import Limit, UsageEvent
from console.setup.step import Link, State, Step
from projects.models import Project
from quota.resources import AI_CREDITS

PATIENCE = 2
"""Seconds for the gateway's answer."""
_RECENT = timedelta(hours=1)
_KEY_REFUSED = (401, 403)


def project_step() -> Step:
    """Return the step that makes a project."""
    title = "Make a project"
    found = Project.objects.count()
    if found:
        return Step(title, State.DONE, f"There {'is 1' if found == 1 else f'are {found}'}.")
    return Step(
        title,
        State.TO_DO,
        "There is none.",
        "Add an organization and its project; the project's credits pay for the work.",
        Link("Add a project", reverse("admin:projects_project_add")),
    )


def provider_step(now: datetime, *, ask: bool) -> Step:
    """Return the step that connects a model provider. With `ask`, it asks if the gateway is ready.

    Only the gateway has the providers' keys, so its booked calls show whether the keys work.
    """
    title = "Connect a model provider"
    answered = UsageEvent.objects.filter(is_error=False, kind=UsageEvent.Kind.USAGE)
    latest = answered.order_by("-booked_at").values_list("booked_at", "provider").first()
    refused = UsageEvent.objects.filter(
        booked_at__gte=now - _RECENT, is_error=True, http_status__in=_KEY_REFUSED
    )
    wrong = refused.order_by("-booked_at").values_list("booked_at", "provider").first()
    if wrong and (latest is None or latest[0] < wrong[0]):
        return Step(
            title,
            State.WRONG,
            f"{wrong[1] or 'The provider'} refused the gateway's key.",
            "Correct ANTHROPIC_API_KEY or OPENAI_API_KEY of the gateway, and restart it.",
        )
    if latest:
        return Step(title, State.DONE, f"{latest[1] or 'A model'} has answered.")
    do = "Set ANTHROPIC_API_KEY or OPENAI_API_KEY of the gateway, and mention the bot."
    if not ask:
        return Step(title, State.TO_DO, "No model has answered yet.", do)
    try:
        missing = requests.get(
            f"{settings.GATEWAY_URL}/_ready", timeout=PATIENCE, allow_redirects=False
        ).json()["missing"]
    except (requests.RequestException, ValueError, KeyError, TypeError):
        found = f"The gateway does not answer at {settings.GATEWAY_URL}."
        return Step(title, State.WRONG, found, "Start it, or correct GATEWAY_URL.")
    if missing:
        found = f"The gateway cannot serve without {' and '.join(map(str, missing))}."
        return Step(title, State.WRONG, found, "Run python -m gateway.doctor where it runs.")
    return Step(title, State.TO_DO, "The gateway is ready; no model has answered yet.", do)


def limit_step() -> Step:
    """Return the step that sets a first limit."""
    title = "Set a limit"
    limits = Limit.objects.filter(account__resource=AI_CREDITS, limit_micro__isnull=False)
    if limits.exists():
        return Step(title, State.DONE, "There is one. Nobody spends more than it allows.")
    return Step(
        title,
        State.TO_DO,
        "Every account is unlimited.",
        "Say how many credits the organization may use in a month.",
        Link("Set a limit", reverse("admin:billing_limit_add")),
    )

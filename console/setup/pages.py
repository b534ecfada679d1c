"""The setup page: ten minutes to your own Slack."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils import timezone

from console.report_page import report_page, require
from console.report_permissions import SETUP
from console.setup.steps import steps
from slack_bot.manifest import manifest


def setup_page(request: HttpRequest) -> HttpResponseBase:
    """Show how far the setup is. With `?part=steps`, return the steps alone for the script."""
    require(request, SETUP)
    found = steps(timezone.now(), ask=True)
    context: dict[str, Any] = {
        "title": "Setup",
        "steps": found,
        "done": sum(step.is_done for step in found),
    }
    if request.GET.get("part") == "steps":
        return report_page(request, "console/setup_steps.html", context)
    variants = [
        ("http", f"With a public address: {settings.PUBLIC_URL}"),
        ("socket", "With Socket Mode, where Slack cannot reach this server"),
    ]
    if not settings.PUBLIC_URL.startswith("https://"):
        variants.reverse()
    context["manifests"] = [
        (name, title, manifest(settings.PUBLIC_URL, socket_mode=name == "socket"))
        for name, title in variants
    ]
    return report_page(request, "console/setup.html", context)


def manifest_file(request: HttpRequest, variant: str) -> HttpResponse:
    """Return a manifest as a file."""
    require(request, SETUP)
    text = manifest(settings.PUBLIC_URL, socket_mode=variant == "socket")
    name = f"tollgate-manifest-{variant}.yaml"
    return HttpResponse(
        text,
        content_type="application/yaml",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )

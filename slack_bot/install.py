"""Install the app in a workspace for one project (OAuth 2.0, version 2 of Slack's flow).

https://docs.slack.dev/authentication/installing-with-oauth/
"""

import secrets
import time
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode, urljoin

import structlog
from django import forms
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.crypto import constant_time_compare
from django.views.decorators.http import require_safe

from projects.models import Membership, Project, User
from slack_bot import installations
from slack_bot.events import Installation
from slack_bot.installations import Grant, ServesAnotherProject
from slack_bot.payloads import identifier, mapping, text
from workflows.slack.client import TIMEOUT, failure_of, web_client

log = structlog.get_logger(__name__)

SCOPES = (
    "app_mentions:read",
    "assistant:write",
    "channels:history",
    "channels:read",
    "chat:write",
    "commands",
    "files:read",
    "files:write",
    "groups:history",
    "groups:read",
    "im:history",
    "im:write",
    "mpim:history",
    "reactions:write",
    "users:read",
    "users:read.email",
)
"""What the app asks for. `manifest.yaml` lists the same scopes."""

_SESSION_KEY = "slack_install"
_STATE_LASTS = 600  # seconds
_LONGEST_LIFETIME = 30 * 24 * 3600  # seconds


class ProjectForm(forms.Form):
    """Asks which project the workspace will serve."""

    project = forms.ModelChoiceField(Project.objects.none(), label="Project", empty_label=None)

    def __init__(self, projects: QuerySet[Project], data: Any = None) -> None:
        super().__init__(data)
        self.fields["project"].queryset = projects  # type: ignore[attr-defined]


class Refused(Exception):
    """The installation cannot be finished. The message tells the user why."""


@login_required
@require_safe
def install(request: HttpRequest) -> HttpResponse:
    """Send the user to Slack, after asking which of their projects the workspace will serve."""
    if not settings.SLACK_CLIENT_ID:
        return _page(request, "Not set up", "SLACK_CLIENT_ID is not configured.", status=503)
    projects = _projects_of(request)
    if not projects:
        words = "Only staff and administrators of an organization can connect a workspace."
        return _page(request, "Not allowed", words, status=403)
    form = ProjectForm(projects, request.GET if "project" in request.GET else None)
    if form.is_valid():
        return _to_slack(request, form.cleaned_data["project"])
    if len(projects) == 1 and not form.is_bound:
        return _to_slack(request, projects[0])
    return render(request, "slack_bot/install.html", {"form": form})


@login_required
@require_safe
def oauth_redirect(request: HttpRequest) -> HttpResponse:
    """Finish the installation that this session began."""
    try:
        project = _redeem_state(request)
        grant = _exchange(request.GET.get("code", ""))
        workspace = installations.connect(project, grant)
    except Refused as refused:
        return _page(request, "Not connected", str(refused), status=400)
    except ServesAnotherProject:
        words = (
            "This workspace serves another project. If you want to change that, "
            "do it in the admin first."
        )
        return _page(request, "Not connected", words, status=409)
    log.info("the app was installed", workspace=str(workspace), project=project.pk)
    words = f"{settings.BOT_NAME} now works in {workspace} for {project}. Mention it in a channel."
    return _page(request, "Connected", words)


def _projects_of(request: HttpRequest) -> QuerySet[Project]:
    """Return the projects that the user may connect a workspace to."""
    user = request.user
    projects = Project.objects.order_by("organization__name", "name")
    if not isinstance(user, User):
        return projects.none()
    if user.has_perms(["projects.view_project", "projects.change_slackworkspace"]):
        return projects
    administered = Membership.objects.filter(user=user, role=Membership.Role.ADMIN)
    return projects.filter(organization__in=administered.values("organization"))


def _to_slack(request: HttpRequest, project: Project) -> HttpResponse:
    state = secrets.token_urlsafe(32)
    request.session[_SESSION_KEY] = {
        "state": state,
        "project": project.pk,
        "expires": time.time() + _STATE_LASTS,
    }
    parameters = {
        "client_id": settings.SLACK_CLIENT_ID,
        "scope": ",".join(SCOPES),
        "redirect_uri": _redirect_uri(),
        "state": state,
    }
    authorize = urljoin(settings.SLACK_API_URL, "../oauth/v2/authorize")
    return HttpResponseRedirect(f"{authorize}?{urlencode(parameters)}")


def _redeem_state(request: HttpRequest) -> Project:
    """Return the project of the installation begun in this session. The state works once."""
    begun = request.session.pop(_SESSION_KEY, None)
    if (
        begun is None
        or begun["expires"] < time.time()
        or not constant_time_compare(begun["state"], request.GET.get("state", ""))
    ):
        raise Refused("This installation was not started here, or has expired. Please start again.")
    if "error" in request.GET:
        raise Refused("Slack says that the installation was not allowed.")
    project = _projects_of(request).filter(pk=begun["project"]).first()
    if project is None:
        raise Refused("You are not allowed to connect a workspace to this project.")
    return project


def _exchange(code: str) -> Grant:
    """Exchange the code for the bot token. Raises `Refused`."""
    try:
        answer = web_client(timeout=TIMEOUT).oauth_v2_access(
            client_id=settings.SLACK_CLIENT_ID,
            client_secret=settings.SLACK_CLIENT_SECRET,
            code=code,
            redirect_uri=_redirect_uri(),
        )
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise Refused(f"Slack did not grant the installation: {failure.error}.") from error
    team, enterprise = mapping(answer.get("team")), mapping(answer.get("enterprise"))
    grant = Grant(
        installation=Installation(
            team_id=identifier(team.get("id")),
            enterprise_id=identifier(enterprise.get("id")),
            is_org_wide=answer.get("is_enterprise_install") is True,
        ),
        name=text(team.get("name") or enterprise.get("name"), 200),
        app_id=identifier(answer.get("app_id")),
        bot_user_id=identifier(answer.get("bot_user_id")),
        bot_token=text(answer.get("access_token"), 500),
        installer_id=identifier(mapping(answer.get("authed_user")).get("id")),
        refresh_token=text(answer.get("refresh_token"), 500),
        expires_in=_lifetime(answer.get("expires_in")),
        scopes=text(answer.get("scope"), 1000),
    )
    if not (grant.bot_token and grant.bot_user_id):
        raise Refused("Slack granted no bot token.")
    return grant


def _lifetime(seconds: object) -> timedelta:
    """Return how long a token lives; twelve hours, as documented, if Slack does not say."""
    is_sane = isinstance(seconds, int) and 0 < seconds < _LONGEST_LIFETIME
    return timedelta(seconds=seconds) if is_sane else timedelta(hours=12)  # type: ignore[arg-type]


def _redirect_uri() -> str:
    return f"{settings.PUBLIC_URL}/slack/oauth_redirect/"


def _page(request: HttpRequest, title: str, words: str, status: int = 200) -> HttpResponse:
    context = {"title": title, "words": words}
    return render(request, "slack_bot/outcome.html", context, status=status)

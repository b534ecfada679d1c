"""`manage.py create_project`: create a project with everything a first mention needs."""

import json
import re
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError, transaction

from billing import organizations, personal_keys
from billing.allowances.limits import set_limit
from billing.credits import parse_credits
from coding_tasks.models import ChannelDefault, Repository
from projects.models import Organization, Project, SlackWorkspace, User
from projects.principal import READ_SCOPES, SCOPES
from quota.resources import AI_CREDITS
from slack_bot.events import Installation
from slack_bot.installations import Grant, ServesAnotherProject, connect
from workflows.models import CreditApprover

ACTOR = "manage.py create_project"
SLACK_FORMS = {
    "slack_workspace": r"T[A-Z0-9]{1,30}",
    "slack_bot_token": r"xoxb-[\w-]{1,300}",
    "slack_bot_user": r"[UW][A-Z0-9]{1,30}",
}


class Command(BaseCommand):
    """Create or update a project with a limit, a Slack workspace and repositories.

    Adds or updates what the options name and removes nothing. Issues a new personal API key each
    time. If there is an error, nothing is changed.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument("--organization", required=True, metavar="ORG")
        parser.add_argument("--name", required=True)
        parser.add_argument(
            "--limit", metavar="CREDITS", help="monthly AI credits of the organization, or none"
        )
        parser.add_argument("--slack-workspace", metavar="T…", help="the workspace it serves")
        parser.add_argument("--slack-bot-token", metavar="xoxb-…")
        parser.add_argument("--slack-bot-user", metavar="U…")
        parser.add_argument(
            "--repository",
            action="append",
            default=[],
            metavar="OWNER/NAME=CLONE_URL",
            help="can be given several times",
        )
        parser.add_argument(
            "--channel-default",
            action="append",
            default=[],
            metavar="C…=OWNER/NAME",
            help="the repository of a channel's mentions; can be given several times",
        )
        parser.add_argument(
            "--credits-channel",
            metavar="C…|U…",
            help="the channel or person to tell when credits run low",
        )
        parser.add_argument(
            "--credits-approver",
            action="append",
            default=[],
            metavar="U…=USERNAME",
            help="lets a person in Slack approve requests for credits, with the rights of this "
            "user of the admin; can be given several times",
        )
        parser.add_argument(
            "--write-tasks",
            action="store_true",
            help="let the key start coding tasks too (scope task:write)",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Create the project in one transaction; print its identifiers and the new key."""
        try:
            with transaction.atomic():
                made = _make(options)
        except IntegrityError as error:
            raise CommandError("another command is creating the same project; try again") from error
        if options["json"]:
            self.stdout.write(json.dumps(made))
            return
        for name, value in made.items():
            self.stdout.write(f"{name + ':':<18}{value}")


def _make(options: dict[str, Any]) -> dict[str, Any]:
    organization = _organization(_name("--organization", options["organization"]))
    project = _project(organization, _name("--name", options["name"]))
    if options["limit"] is not None:
        set_limit(organization, AI_CREDITS, _limit_micro(options["limit"]), actor=ACTOR)
    _connect_slack(project, options)
    for text in options["repository"]:
        _add_repository(project, text)
    for text in options["channel_default"]:
        _set_channel_default(project, text)
    if options["credits_channel"]:
        _set_credits_channel(project, options["credits_channel"])
    for text in options["credits_approver"]:
        _add_credits_approver(project, text)
    scopes = SCOPES if options["write_tasks"] else READ_SCOPES
    _, key = personal_keys.create(organization, f"made by {ACTOR}", scopes, [project], actor=ACTOR)
    return {
        "organization_id": str(organization.pk),
        "project_id": project.pk,
        "api_token": project.api_token,
        "personal_api_key": key,
    }


def _name(option: str, value: str) -> str:
    name = value.strip()
    if not 0 < len(name) <= 200:
        raise CommandError(f"{option} must have 1 to 200 characters")
    return name


def _organization(name: str) -> Organization:
    found = Organization.objects.filter(name=name).first()
    return found or organizations.create_organization(name)


def _project(organization: Organization, name: str) -> Project:
    found = Project.objects.filter(organization=organization, name=name).first()
    return found or organizations.create_project(organization, name)


def _limit_micro(text: str) -> int | None:
    if text == "none":
        return None
    try:
        return parse_credits(text)
    except ValueError as error:
        raise CommandError(f"--limit: {error}, or write none") from error


def _connect_slack(project: Project, options: dict[str, Any]) -> None:
    team, token, user = (
        options[name] for name in ("slack_workspace", "slack_bot_token", "slack_bot_user")
    )
    if not (team or token or user):
        return
    if not (team and token and user):
        raise CommandError(
            "--slack-workspace, --slack-bot-token and --slack-bot-user must be given together"
        )
    for name, form in SLACK_FORMS.items():
        if not re.fullmatch(form, options[name], re.ASCII):
            raise CommandError(f"--{name.replace('_', '-')} must match {form}")
    installation = Installation(team_id=team, enterprise_id="", is_org_wide=False)
    try:
        connect(project, Grant(installation, team, app_id="", bot_user_id=user, bot_token=token))
    except ServesAnotherProject as error:
        raise CommandError(
            f"workspace {team} already serves another project; a workspace can serve only one"
        ) from error


def _add_repository(project: Project, text: str) -> None:
    full_name, separator, clone_url = text.partition("=")
    if not separator:
        raise CommandError("--repository must be OWNER/NAME=CLONE_URL")
    repository = Repository.objects.filter(project=project, full_name=full_name).first()
    repository = repository or Repository(project=project, full_name=full_name)
    repository.clone_url = clone_url
    try:
        repository.full_clean()
    except ValidationError as error:
        raise CommandError(f"--repository {full_name}: {' '.join(error.messages)}") from error
    repository.save()


def _set_channel_default(project: Project, text: str) -> None:
    channel, separator, full_name = text.partition("=")
    if not separator or not re.fullmatch(r"[CG][A-Z0-9]{1,30}", channel, re.ASCII):
        raise CommandError("--channel-default must be C…=OWNER/NAME")
    repository = Repository.objects.filter(project=project, full_name=full_name).first()
    if repository is None:
        raise CommandError(f"--channel-default {channel}: the project has no {full_name}")
    for workspace in _workspaces(project, "--channel-default"):
        ChannelDefault.objects.update_or_create(
            workspace=workspace, channel_id=channel, defaults={"repository": repository}
        )


def _set_credits_channel(project: Project, channel: str) -> None:
    if not re.fullmatch(r"[CGUW][A-Z0-9]{1,30}", channel, re.ASCII):
        raise CommandError("--credits-channel must be the id of a channel (C…) or a person (U…)")
    for workspace in _workspaces(project, "--credits-channel"):
        workspace.credits_channel_id = channel
        workspace.save(update_fields=["credits_channel_id"])


def _add_credits_approver(project: Project, text: str) -> None:
    slack_user_id, separator, username = text.partition("=")
    if not separator or not re.fullmatch(r"[UW][A-Z0-9]{1,30}", slack_user_id, re.ASCII):
        raise CommandError("--credits-approver must be U…=USERNAME")
    user = User.objects.filter(username=username).first()
    if user is None:
        raise CommandError(f"--credits-approver: there is no user {username}")
    for workspace in _workspaces(project, "--credits-approver"):
        CreditApprover.objects.update_or_create(
            workspace=workspace, slack_user_id=slack_user_id, defaults={"user": user}
        )


def _workspaces(project: Project, option: str) -> list[SlackWorkspace]:
    """Return the project's active workspaces. The option needs at least one."""
    workspaces = list(project.slack_workspaces.filter(is_active=True).defer("bot_token"))
    if not workspaces:
        raise CommandError(f"{option}: no Slack workspace is connected")
    return workspaces

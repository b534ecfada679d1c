"""The steps that connect Slack: the app, its secrets, how Slack reaches us, the installation."""

from datetime import datetime

from django.conf import settings
from django.urls import reverse
from django.utils.timesince import timesince

from console.setup.step import Link, State, Step
from projects.models import SlackWorkspace
from slack_bot.models import SlackArrival
from slack_bot.scopes import missing_scopes, remember_scopes
from slack_bot.socket_mode.reports import listening
from workflows.slack.client import client_for, failure_of

PATIENCE = 2
"""Seconds for an answer from Slack."""
_PROBLEMS = {
    "invalid_auth": "Make another app-level token and set SLACK_APP_TOKEN.",
    "not_allowed_token_type": "Set SLACK_APP_TOKEN to an app-level token (xapp-…), not the bot's.",
    "missing_scope": "Give the app-level token the scope connections:write.",
    "link_disabled": "Switch Socket Mode on in the app's settings.",
    "too_many_websockets": "Run at most ten processes of slack_socket.",
}


def app_step(workspaces: list[SlackWorkspace]) -> Step:
    """Return the step that makes the Slack app, done if anything shows that the app exists."""
    title = "Make the Slack app"
    if workspaces or settings.SLACK_CLIENT_ID or SlackArrival.objects.exists():
        return Step(title, State.DONE, "The app exists.")
    return Step(
        title,
        State.TO_DO,
        "No app is known yet.",
        "Create it from one of the manifests below.",
        Link("Slack's list of your apps", "https://api.slack.com/apps?new_app=1"),
    )


def secrets_step(workspaces: list[SlackWorkspace]) -> Step:
    """Return the step that sets the app's secrets. It never shows their values."""
    title = "Give Tollgate the app's secrets"
    given = {
        "SLACK_SIGNING_SECRET": bool(settings.SLACK_SIGNING_SECRETS),
        "SLACK_CLIENT_ID": bool(settings.SLACK_CLIENT_ID),
        "SLACK_CLIENT_SECRET": bool(settings.SLACK_CLIENT_SECRET),
    }
    found = ". ".join(
        f"{word}: {', '.join(names)}"
        for word, names in (
            ("Set", [name for name, is_set in given.items() if is_set]),
            ("Missing", [name for name, is_set in given.items() if not is_set]),
        )
        if names
    )
    # A workspace can also be added by hand, with the token that Slack shows after an installation.
    needed = ["SLACK_SIGNING_SECRET"] if workspaces else list(given)
    lacking = [name for name in needed if not given[name]]
    if not lacking:
        return Step(title, State.DONE, f"{found}.")
    do = f"Copy {_listed(lacking)} from Basic Information of the app, and restart."
    return Step(title, State.TO_DO, f"{found}.", do)


def reach_step(now: datetime) -> Step:
    """Return the step that lets Slack reach this server, over HTTP or over a socket."""
    title = "Let Slack reach this server"
    processes = listening(now)
    connected = [each for each in processes if each.connected_since]
    if connected:
        names = ", ".join(each.process for each in connected)
        return Step(title, State.DONE, f"Listening in Socket Mode: {names}.")
    if processes:
        problem = processes[0].problem
        return Step(
            title,
            State.WRONG if problem else State.TO_DO,
            f"{processes[0].process} is not connected ({problem or 'it has just started'}).",
            _PROBLEMS.get(problem, "See the log of slack_socket; it keeps trying."),
        )
    latest = {
        way: SlackArrival.objects.filter(way=way).order_by("-at").first()
        for way in (SlackArrival.Way.HTTP, SlackArrival.Way.WRONG_SIGNATURE)
    }
    good, wrong = latest[SlackArrival.Way.HTTP], latest[SlackArrival.Way.WRONG_SIGNATURE]
    if wrong and (good is None or good.at < wrong.at):
        return Step(
            title,
            State.WRONG,
            f"A request with a wrong signature came {_ago(wrong.at, now)}.",
            "Set SLACK_SIGNING_SECRET to that of this app, and restart.",
        )
    if good:
        return Step(title, State.DONE, f"Slack's last request came {_ago(good.at, now)}.")
    if settings.PUBLIC_URL.startswith("https://"):
        return Step(
            title,
            State.TO_DO,
            f"Slack has sent nothing to {settings.PUBLIC_URL} yet.",
            "Verify the request URL under Event Subscriptions of the app, or use Socket Mode.",
        )
    return Step(
        title,
        State.TO_DO,
        f"{settings.PUBLIC_URL} is not a public https address, and no process listens.",
        "Set PUBLIC_URL to one, or set SLACK_APP_TOKEN and start manage.py slack_socket.",
    )


def installation_step(workspaces: list[SlackWorkspace]) -> Step:
    """Return the step that installs the app, with the workspaces where it is installed."""
    title = "Install the app in a workspace"
    if workspaces:
        named = ", ".join(f"{each} for {each.project}" for each in workspaces)
        return Step(title, State.DONE, f"It is installed in {named}.")
    if settings.SLACK_CLIENT_ID:
        link = Link("Install it", reverse("slack-install"))
        return Step(title, State.TO_DO, "It is not installed yet.", "Choose a project here.", link)
    return Step(
        title,
        State.TO_DO,
        "It is not installed yet.",
        "Install it from the app's settings, and add the workspace with its bot token here.",
        Link("Add a workspace", reverse("admin:projects_slackworkspace_add")),
    )


def scopes_step(workspaces: list[SlackWorkspace], *, ask: bool) -> Step | None:
    """Return the step about the granted scopes, or None if some are not known yet.

    With `ask`, it asks Slack about workspaces whose scopes are not known.
    """
    title = "Grant what the bot needs"
    if not workspaces:
        return Step(title, State.TO_DO, "No workspace has granted anything.", "Install the app.")
    lacking: dict[str, list[str]] = {}
    unknown: list[str] = []
    for workspace in workspaces:
        granted = workspace.scopes
        if not granted and ask:
            try:
                answer = client_for(workspace, PATIENCE).auth_test()
            except Exception as error:
                failure = failure_of(error)
                if failure is None:
                    raise
                found = f"Slack does not take the bot token of {workspace} ({failure.error})."
                return Step(title, State.WRONG, found, "Install the app again.")
            granted = remember_scopes(workspace, answer)
        if granted and (missing := missing_scopes(granted)):
            lacking[str(workspace)] = missing
        elif not granted:
            unknown.append(str(workspace))
    if unknown and not lacking:
        found = f"It is not known what {_listed(unknown)} granted."
        return Step(title, State.TO_DO, found) if ask else None
    if not lacking:
        return Step(title, State.DONE, "Every scope of the manifest was granted.")
    found = "; ".join(f"{name} lacks {', '.join(scopes)}" for name, scopes in lacking.items())
    do = "Update the app's manifest from the one below, and install it again."
    return Step(title, State.WRONG, f"{found}.", do, Link("Install it", reverse("slack-install")))


def event_step(now: datetime) -> Step:
    """Return the step about the first mention, with the time of the last event."""
    title = "Mention the bot"
    events = SlackArrival.objects.filter(kind="events")
    latest = events.exclude(way=SlackArrival.Way.WRONG_SIGNATURE).order_by("-at").first()
    if latest is not None:
        way = latest.get_way_display()
        return Step(title, State.DONE, f"The last event came {_ago(latest.at, now)}, {way}.")
    do = f"Invite the bot into a channel (/invite @{settings.BOT_NAME}) and mention it."
    return Step(title, State.TO_DO, "No event has come yet.", do)


def _listed(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _ago(moment: datetime, now: datetime) -> str:
    """Return how long ago it was. Arrivals are noted once a minute."""
    if (now - moment).total_seconds() < 120:
        return "just now"
    return f"{timesince(moment, now, depth=1)} ago".replace("\xa0", " ")

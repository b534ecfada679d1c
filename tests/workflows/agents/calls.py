"""Shell code with which the agents of these tests call the model, and what their runs leave."""

from pathlib import Path

from django.conf import settings

from coding_tasks.models import TaskRun
from coding_tasks.sandbox.command import PYTHON_INSIDE
from coding_tasks.turns.agent_runs import AgentRuns
from projects.models import OAuthAccessToken

CALL = f"""{PYTHON_INSIDE} -c '
import os, urllib.request
base, token = os.environ["ANTHROPIC_BASE_URL"], os.environ["ANTHROPIC_AUTH_TOKEN"]
body = b"{{\\"model\\": \\"claude-sonnet-4-6\\", \\"max_tokens\\": 9, \\"messages\\": []}}"
headers = {{"Authorization": "Bearer " + token, "Content-Type": "application/json"}}
urllib.request.urlopen(urllib.request.Request(base + "/v1/messages", body, headers))
'"""
"""Shell code that calls the model, and fails if the gateway refuses."""


def nothing_is_left() -> bool:
    """Return whether neither a token nor a file of the runs exists."""
    runs_folder = Path(settings.AGENT_EXCHANGE_DIRECTORY) / "runs"
    return not OAuthAccessToken.objects.exists() and list(runs_folder.iterdir()) == []


def has_begun() -> bool:
    """Return whether the run's agent has said anything."""
    run = TaskRun.objects.first()
    attempt = run and AgentRuns.from_settings().exchange.latest(str(run.pk))
    return bool(attempt and attempt.event_lines())

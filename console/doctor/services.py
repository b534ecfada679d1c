"""The doctor's checks of Temporal, the agent workers, Slack and the gateway."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import requests
from django.conf import settings
from django.db import Error as DatabaseFailure
from django.utils import timezone
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.service import RPCError

from coding_tasks.turns.agent_readiness import agent_workers
from console.doctor.findings import Finding, brief
from projects.models import RotatingToken, SlackWorkspace
from slack_bot.scopes import missing_scopes, remember_scopes
from slack_bot.socket_mode.reports import listening
from workflows.slack.client import client_for, failure_of
from workflows.temporal.client import connect

PATIENCE = 4
"""Seconds for one answer."""
MOST_WORKSPACES = 5


def temporal_findings() -> Iterator[Finding]:
    """Check that Temporal answers, and that a worker polls our task queue."""
    try:
        pollers = asyncio.run(asyncio.wait_for(_pollers(), 3 * PATIENCE))
    except (RuntimeError, RPCError, TimeoutError) as error:
        yield Finding(
            "temporal",
            "error",
            f"it does not answer at {settings.TEMPORAL_ADDRESS} ({brief(error)}): work waits",
            "Start it, or correct TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE or its TLS settings.",
        )
        return
    yield Finding("temporal", "ok", f"the namespace {settings.TEMPORAL_NAMESPACE} answers")
    queue = settings.TEMPORAL_TASK_QUEUE
    if pollers:
        yield Finding("workers", "ok", f"{pollers} poll the task queue {queue}")
    else:
        do = "Start manage.py run_worker, with the same TEMPORAL_TASK_QUEUE."
        yield Finding("workers", "error", f"no worker polls the task queue {queue}", do)


async def _pollers() -> int:
    client = await connect()
    described = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=settings.TEMPORAL_NAMESPACE,
            task_queue=TaskQueue(name=settings.TEMPORAL_TASK_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    return len(described.pollers)


def agent_findings() -> Iterator[Finding]:
    """Say how many agent workers report. The system checks name those without a sandbox."""
    reports = agent_workers()
    if reports:
        names = ", ".join(report.worker for report in reports)
        yield Finding("agent workers", "ok", f"{len(reports)} report: {names}")
    elif settings.DEFAULT_AGENT == "reader":
        yield Finding("agent workers", "ok", "no worker reports, and the default agent needs none")
    else:
        yield Finding(
            "agent workers",
            "warning",
            f"no worker reported in the last minute, but DEFAULT_AGENT is {settings.DEFAULT_AGENT}",
            "Start python -m coding_tasks.agent_worker, with the same AGENT_EXCHANGE_DIRECTORY.",
        )


def slack_findings() -> Iterator[Finding]:
    """Check the bot token of each installed workspace. Without any, Slack is not called."""
    try:
        installed = list(SlackWorkspace.objects.filter(is_active=True)[: MOST_WORKSPACES + 1])
    except DatabaseFailure:
        return  # the database has its own line
    if not installed:
        yield Finding("slack", "ok", "the app is not installed in any workspace yet")
    for workspace in installed[:MOST_WORKSPACES]:
        try:
            answer = client_for(workspace, timeout=PATIENCE).auth_test()
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            yield Finding(
                "slack",
                "error",
                f"{workspace}: {failure.error}",
                "Install the app again (/slack/install/) if the token is refused. Otherwise see "
                "whether this machine reaches SLACK_API_URL.",
            )
        else:
            yield Finding("slack", "ok", f"{workspace}: the bot token is accepted")
            yield from _scopes(workspace, remember_scopes(workspace, answer))
        yield from _renewal(workspace)
    if len(installed) > MOST_WORKSPACES:
        yield Finding("slack", "ok", f"only {MOST_WORKSPACES} workspaces were asked")
    yield from _sockets()


def _scopes(workspace: SlackWorkspace, granted: str) -> Iterator[Finding]:
    lacking = missing_scopes(granted)
    if granted and lacking:
        yield Finding(
            "slack scopes",
            "warning",
            f"{workspace} did not grant {', '.join(lacking)}",
            "Add them to the Slack app (manage.py slack_manifest), and install it again.",
        )


def _renewal(workspace: SlackWorkspace) -> Iterator[Finding]:
    token = RotatingToken.objects.filter(workspace=workspace).defer("refresh_token").first()
    if token is None:
        return
    expires = f"the bot token of {workspace} expires at {token.expires_at:%Y-%m-%d %H:%M} UTC"
    if token.refresh_at is None:
        do = "Install the app again (/slack/install/)."
        problem = f"{expires} and cannot be renewed ({token.problem})"
        yield Finding("slack token", "error", problem, do)
    elif token.problem:
        do = "Check SLACK_CLIENT_ID and SLACK_CLIENT_SECRET of Celery, and that it reaches Slack."
        yield Finding("slack token", "warning", f"{expires}: {token.problem}", do)
    else:
        yield Finding("slack token", "ok", expires)


def _sockets() -> Iterator[Finding]:
    """Yield a finding about each process that listens in Socket Mode."""
    for each in listening(timezone.now()):
        if each.connected_since is None:
            do = "Check Socket Mode and the app-level tokens in the app's settings, and its log."
            why = f"{each.process} is not connected ({each.problem or 'not yet'})"
            yield Finding("slack socket", "error", why, do)
        else:
            yield Finding("slack socket", "ok", f"{each.process} is connected")


def gateway_findings() -> Iterator[Finding]:
    """Ask the gateway whether it is ready, because Django cannot reach the gateway's Redis."""
    address = f"{settings.GATEWAY_URL}/_ready"
    try:
        answer = requests.get(address, timeout=PATIENCE, allow_redirects=False)
        missing = answer.json()["missing"]
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        yield Finding(
            "gateway",
            "error",
            f"no usable answer from {address} ({type(error).__name__}): agents reach no model",
            "Start the gateway, or correct GATEWAY_URL.",
        )
        return
    if missing:
        do = {
            "redis": "Start its Redis.",
            "tollgate": "See TOLLGATE_URL and GATEWAY_SERVICE_TOKEN.",
        }
        yield Finding(
            "gateway",
            "error",
            f"it cannot serve without {' and '.join(missing)}",
            " ".join(do.get(name, "") for name in missing).strip(),
        )
    else:
        yield Finding("gateway", "ok", "it is ready")


def findings_of_the_gateway() -> Iterator[Finding]:
    """Run the gateway's own checks. This process must have the gateway's environment variables."""
    command = [sys.executable, "-m", "gateway.doctor", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    try:
        found: list[dict[str, Any]] = json.loads(ran.stdout)
    except ValueError:
        do = "Run it where the gateway runs, with its variables."
        said = (ran.stderr.strip().splitlines() or ["no output"])[-1][:200]
        yield Finding("gateway.doctor", "error", f"it could not run: {said}", do)
        return
    yield from (Finding(**one) for one in found)

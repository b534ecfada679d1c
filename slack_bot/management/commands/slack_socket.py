"""`manage.py slack_socket`: listen to Slack without a public address."""

import os
import signal
import sys
from typing import Any

import structlog
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from projects.metrics_server import serve_metrics
from slack_bot.socket_mode.listener import Listener

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    """Runs until SIGTERM or SIGINT, then finishes and acknowledges what it has begun."""

    help = (
        "Receive from Slack in Socket Mode instead of over HTTP. Needs SLACK_APP_TOKEN. "
        "Several processes can run at once. SIGTERM or Ctrl-C stops it cleanly."
    )
    requires_system_checks = ["tollgate"]  # Django's own checks would load every page

    def handle(self, *_arguments: Any, **_options: Any) -> None:
        """Listen until a signal comes."""
        if not settings.SLACK_APP_TOKEN:
            raise CommandError(
                "SLACK_APP_TOKEN is not set. Make an app-level token with the scope "
                "connections:write (Basic Information of the Slack app)."
            )
        serve_metrics()
        listener = Listener(settings.SLACK_APP_TOKEN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: listener.stop())
        if not listener.run():
            log.warning("an envelope was not handled in time; Slack will deliver it again")
            sys.stderr.flush()
            os._exit(0)  # the blocked thread would hold up the interpreter's own exit

"""`python manage.py run_worker`: the process that handles mentions."""

import asyncio
import os
import signal
import sys
from typing import Any

import structlog
from django.core.management.base import BaseCommand

from projects.metrics_server import serve_metrics
from workflows.temporal import worker

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    """Runs the Temporal worker until SIGTERM or SIGINT."""

    help = "Run the Temporal worker that handles mentions. SIGTERM or Ctrl-C stops it cleanly."
    requires_system_checks = ["tollgate"]  # Django's own checks would load every page

    def handle(self, *_arguments: Any, **_options: Any) -> None:
        """Run until a signal comes, then stop within ten seconds, even if an activity hangs."""
        serve_metrics()
        tools = worker.configured_tools()
        worker.keep_tidy(tools)
        asyncio.run(_run_until_signal(tools))


async def _run_until_signal(tools: worker.Tools) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if not await worker.run(stop, tools):
        log.warning("an activity did not end in time and is left to another worker")
        sys.stderr.flush()
        os._exit(0)  # the blocked thread would hold up the interpreter's own exit

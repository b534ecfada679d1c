"""`manage.py run_reconciler`: keeps Django's Redis equal to what was published."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from projects.metrics_server import serve_metrics
from quota.published.reconciler import Reconciler


class Command(BaseCommand):
    """Runs in the foreground until SIGTERM or SIGINT, then finishes the current tick and exits."""

    requires_system_checks = []  # a mistake in other settings must not stop the reconciler
    help = "Compare Redis with the published limits every second and repair it. Runs until stopped."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Run the reconciler."""
        serve_metrics()
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: stop.set())
        Reconciler().run(stop)

"""`python manage.py run_agent_worker`: the process that runs agents."""

import os
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

KEPT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "VIRTUAL_ENV")
READ = ("TEMPORAL_", "AGENT_", "AGENTS_", "SANDBOX", "DOCKER_", "LC_", "PYTHON")


class Command(BaseCommand):
    """Becomes `python -m coding_tasks.agent_worker`, without the secrets of Django's processes."""

    help = "Run the worker that runs agents in sandboxes. SIGTERM or Ctrl-C stops it cleanly."

    def handle(self, *_arguments: Any, **_options: Any) -> None:
        """Replace this process by the agent worker."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in KEPT or name.startswith(READ)
        }
        environment |= {
            "TEMPORAL_ADDRESS": settings.TEMPORAL_ADDRESS,
            "TEMPORAL_NAMESPACE": settings.TEMPORAL_NAMESPACE,
            "AGENT_EXCHANGE_DIRECTORY": settings.AGENT_EXCHANGE_DIRECTORY,
            "SANDBOX_UID": str(settings.SANDBOX_UID),
        }
        os.chdir(settings.BASE_DIR)
        argv = [sys.executable, "-m", "coding_tasks.agent_worker"]
        os.execve(sys.executable, argv, environment)  # noqa: S606 - no shell is wanted

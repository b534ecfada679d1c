"""`manage.py slack_manifest`: the manifest of the Slack app for this server."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from slack_bot.manifest import manifest


class Command(BaseCommand):
    """Prints the manifest with PUBLIC_URL as its address."""

    help = "Print the manifest of the Slack app, as YAML."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--socket-mode",
            action="store_true",
            help="for a server that Slack cannot reach; manage.py slack_socket then listens",
        )

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Print the manifest."""
        self.stdout.write(manifest(settings.PUBLIC_URL, socket_mode=options["socket_mode"]))

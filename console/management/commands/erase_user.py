"""`manage.py erase_user USERNAME`: erase what a user asked for over the API."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from projects.models import User
from workflows.erasure import erase_user


class Command(BaseCommand):
    """Erase what a user asked for over the API, and the answers. Rows, times and amounts stay.

    The user's current work ends without an answer. `erase_slack_user` erases what the user wrote in
    Slack.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the user."""
        parser.add_argument("username", help="the name that the user logs in with")

    def handle(self, *_args: Any, username: str, **_options: Any) -> None:
        """Erase in one transaction and print how many runs were changed."""
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"there is no user {username!r}")
        self.stdout.write(f"Erased: {erase_user(user)} task run(s).")

"""`manage.py erase_slack_user TEAM USER`: erase what a Slack user wrote."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from workflows.erasure import erase


class Command(BaseCommand):
    """Erase what a Slack user wrote, and the answers to it. Rows, times and amounts stay.

    Work under way for the user ends without an answer.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the workspace and the user, by their ids in Slack."""
        parser.add_argument("team", help="the workspace, T…; or E… if the app serves all of it")
        parser.add_argument("user", help="the user, U… or W…")

    def handle(self, *_args: Any, team: str, user: str, **_options: Any) -> None:
        """Erase in one transaction and print how many rows were changed."""
        erased = erase(team, user)
        self.stdout.write(
            f"Erased: {erased.mentions} mention(s), {erased.follow_ups} follow-up(s), "
            f"{erased.runs} task run(s)."
        )

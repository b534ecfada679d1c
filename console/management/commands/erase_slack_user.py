"""`manage.py erase_slack_user TEAM USER`: erase what a Slack user wrote."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction
from django.db.models import Q

from coding_tasks.models import CodingTask, TaskRun
from workflows.models import FollowUp, Mention, Notice, ThreadReply

ERASED = "[erased]"


class Command(BaseCommand):
    """Erase what a Slack user wrote, and the answers to it. Rows, times and amounts stay."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the workspace and the user, by their ids in Slack."""
        parser.add_argument("team", help="the workspace, T…")
        parser.add_argument("user", help="the user, U… or W…")

    def handle(self, *_args: Any, team: str, user: str, **_options: Any) -> None:
        """Erase in one transaction; print how many rows were changed."""
        with transaction.atomic():
            by_user = Q(workspace__team_id=team, user_id=user)
            mentions = Mention.objects.filter(by_user).update(text=ERASED)
            follow_ups = FollowUp.objects.filter(by_user).update(text=ERASED)
            ThreadReply.objects.filter(by_user).delete()
            Notice.objects.filter(by_user).update(text=ERASED)  # answers are notices too
            tasks = CodingTask.objects.filter(workspace__team_id=team, owner_slack_user_id=user)
            runs = TaskRun.objects.filter(task__in=tasks).update(request=ERASED, answer=ERASED)
            tasks.update(title=ERASED)
        self.stdout.write(
            f"Erased: {mentions} mention(s), {follow_ups} follow-up(s), {runs} task run(s)."
        )

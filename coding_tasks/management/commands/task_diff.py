"""`manage.py task_diff TASK_ID`: the change of a task as a patch."""

import sys
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from coding_tasks.models import CodingTask
from coding_tasks.publishing.publication import task_diff

_KEPT = "\n\t"


class Command(BaseCommand):
    """Print what a task changed, as a patch for `git apply`.

    On a terminal, control characters are shown and not obeyed.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the task's id."""
        parser.add_argument("task", metavar="TASK_ID", type=UUID)

    def handle(self, *_args: Any, task: UUID, **_options: Any) -> None:
        """Print the patch as it is, or nothing if the task changed nothing."""
        try:
            patch = task_diff(CodingTask.objects.get(pk=task))
        except CodingTask.DoesNotExist as error:
            raise CommandError(f"There is no task {task}.") from error
        if sys.stdout.isatty():
            self.stdout.write(visible(patch), ending="")
        else:
            sys.stdout.buffer.write(patch)
            sys.stdout.buffer.flush()


def visible(patch: bytes) -> str:
    """Return a patch as text in which control characters are escaped."""
    text = patch.decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() or one in _KEPT else ascii(one)[1:-1] for one in text)

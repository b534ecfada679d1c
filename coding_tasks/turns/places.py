"""Places for agents' turns: each project has a bounded number at once, first come, first served.

Without them one project could occupy all agent workers. A run keeps its place until what its turn
made is collected, or until it ends.
"""

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from coding_tasks.models import TaskRun
from projects.models import Project


@transaction.atomic
def take_place(run: TaskRun) -> bool:
    """Return whether the run's turn may begin now. Otherwise it waits in line, and asks again."""
    most = settings.AGENT_TURNS_PER_PROJECT
    # `no_key`, because rows that point to the project are inserted all the time.
    project = Project.objects.select_for_update(no_key=True).get(pk=run.task.project_id)
    asked = TaskRun.objects.get(pk=run.pk)
    if asked.has_place:
        return True
    since = asked.place_wanted_at or timezone.now()
    others = TaskRun.objects.filter(
        task__project=project, state__in=TaskRun.UNFINISHED, place_wanted_at__isnull=False
    ).exclude(pk=run.pk)
    taken = others.filter(has_place=True).count()
    ahead = others.filter(has_place=False, place_wanted_at__lt=since).count()
    found = most == 0 or taken + ahead < most
    TaskRun.objects.filter(pk=run.pk).update(place_wanted_at=since, has_place=found)
    return found


def is_in_line(run: TaskRun) -> bool:
    """Return whether the run waits for a place."""
    waits = run.place_wanted_at is not None and not run.has_place
    return waits and run.state in TaskRun.UNFINISHED

"""`manage.py rotate_change_feed`: to be run after a restored backup."""

import uuid
from typing import Any

from django.core.management.base import BaseCommand

from projects.models import ChangeCursor


class Command(BaseCommand):
    """Give the change feed a new identity, so that its followers start afresh."""

    help = __doc__

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Replace the feed's UUID. A restored database would else reuse versions it gave out."""
        ChangeCursor.objects.get_or_create(pk=1)
        ChangeCursor.objects.update(feed=uuid.uuid4())
        self.stdout.write("The change feed has a new identity; its followers start afresh.")

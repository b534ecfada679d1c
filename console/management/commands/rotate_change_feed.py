"""`manage.py rotate_change_feed`: run this after restoring a backup."""

import uuid
from typing import Any

from django.core.management.base import BaseCommand

from projects.models import ChangeCursor


class Command(BaseCommand):
    """Give the change feed a new identity, so that its readers start over."""

    help = __doc__

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Replace the feed's UUID. A restored database would otherwise reuse old versions."""
        ChangeCursor.objects.get_or_create(pk=1)
        ChangeCursor.objects.update(feed=uuid.uuid4())
        self.stdout.write("The change feed has a new identity; its readers start over.")

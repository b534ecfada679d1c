"""`manage.py reencrypt_secrets`: the middle step of rotating `SECRET_KEY`."""

from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from coding_tasks.models import GitCredential
from projects.models import RotatingToken, SlackWorkspace


class Command(BaseCommand):
    """Encrypt every stored secret with the current SECRET_KEY, reading old ones with fallbacks."""

    help = __doc__

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Save every token of Slack and every credential of repositories in one transaction."""
        with transaction.atomic():
            workspaces = list(SlackWorkspace.objects.select_for_update())
            for workspace in workspaces:
                workspace.save(update_fields=["bot_token"])
            tokens = list(RotatingToken.objects.select_for_update())
            for token in tokens:
                token.save(update_fields=["refresh_token"])
            credentials = list(GitCredential.objects.select_for_update())
            for credential in credentials:
                credential.save(update_fields=["secret"])
        self.stdout.write(
            f"{len(workspaces)} bot token(s), {len(tokens)} refresh token(s) and "
            f"{len(credentials)} git credential(s) encrypted with the current SECRET_KEY."
        )

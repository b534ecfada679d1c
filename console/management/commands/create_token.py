"""`manage.py create_token`: issue a token for trying a client by hand."""

import re
import uuid
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing import personal_keys
from billing.products import ALIASES, BUCKETS, canonical
from projects.authentication import credentials
from projects.models import Project
from projects.principal import LLM_GATEWAY_READ

ACTOR = "manage.py create_token"
LIFETIME = timedelta(days=1)


class Command(BaseCommand):
    """Print a new token of a project for one gateway product.

    Only the token goes to standard output; remarks go to standard error. The token cannot be shown
    again.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the project and the product."""
        parser.add_argument("project_id", metavar="PROJECT_ID")
        parser.add_argument("--product", required=True, help=", ".join([*BUCKETS, *ALIASES]))

    def handle(self, *_args: Any, project_id: str, product: str, **_options: Any) -> None:
        """Issue the token. Raises `CommandError` if the project or product is unknown."""
        project = _project(project_id)
        name = canonical(product)
        if name is None:
            raise CommandError(f"unknown product {product!r}; use one of {', '.join(BUCKETS)}")
        if name == "llm_gateway":
            token = self._personal_api_key(project)
        else:
            token = _oauth_token(project, name)
            self.stderr.write(f"valid for {LIFETIME.days} day, for {name}")
        self.stdout.write(token)

    def _personal_api_key(self, project: Project) -> str:
        """Return a new personal API key: the unmetered product takes no other credential."""
        if not project.organization.unmetered_gateway:
            self.stderr.write(
                f"the gateway will refuse it: llm_gateway is switched off for "
                f"{project.organization} (unmetered gateway, in the admin)"
            )
        self.stderr.write("a personal API key, which llm_gateway takes; valid until it is revoked")
        _, key = personal_keys.create(
            project.organization, f"made by {ACTOR}", [LLM_GATEWAY_READ], [project], actor=ACTOR
        )
        return key


def _project(project_id: str) -> Project:
    found = None
    if re.fullmatch(r"\d{1,18}", project_id, re.ASCII):
        found = Project.objects.select_related("organization").filter(pk=project_id).first()
    if found is None:
        raise CommandError(f"there is no project {project_id}")
    return found


def _oauth_token(project: Project, product: str) -> str:
    if product == "slack_app":  # like a task run's token, though there is no such run
        return credentials.mint_run_token(project, uuid.uuid4(), [product], LIFETIME)
    if product == "posthog_code":
        return credentials.mint_client_token(project, LIFETIME)
    return credentials.mint_product_token(project, product, LIFETIME)

"""Making and revoking credentials. Their plain text is returned once and not stored."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from oauth2_provider.models import set_token_value

from projects import revocation
from projects.models import (
    OAuthAccessToken,
    OAuthApplication,
    Organization,
    PersonalAPIKey,
    Project,
    User,
)
from projects.principal import LLM_GATEWAY_READ, SCOPES
from projects.tokens import generate_access_token, generate_personal_api_key, mask, sha256


def issue_personal_api_key(
    organization: Organization,
    label: str,
    scopes: Iterable[str],
    projects: Iterable[Project] = (),
    user: User | None = None,
) -> tuple[PersonalAPIKey, str]:
    """Make a key for these projects, or for the whole organization if none are given.

    Returns the row and the key itself, which cannot be read again. Raises `ValueError` for an
    unknown scope or a project of another organization.
    """
    wanted, covered = set(scopes), list(projects)
    if unknown := wanted - SCOPES:
        raise ValueError(f"unknown scope: {', '.join(sorted(unknown))}")
    if any(project.organization_id != organization.pk for project in covered):
        raise ValueError(f"a key of {organization} covers its own projects only")
    plain = generate_personal_api_key()
    with transaction.atomic():
        key = PersonalAPIKey.objects.create(
            organization=organization,
            user=user,
            label=label,
            sha256=sha256(plain),
            mask=mask(plain),
            scopes=sorted(wanted),
            all_projects=not covered,
        )
        key.projects.set(covered)
    return key, plain


def revoke_personal_api_key(key: PersonalAPIKey) -> None:
    """Revoke a key for good. Revoking it again changes nothing."""
    with transaction.atomic():
        live = PersonalAPIKey.objects.filter(pk=key.pk, revoked_at=None)
        if live.update(revoked_at=timezone.now()):
            revocation.announce([key.sha256])
    key.refresh_from_db(fields=["revoked_at"])


def mint_run_token(
    project: Project,
    task_run_id: uuid.UUID,
    products: Sequence[str],
    lifetime: timedelta,
    *,
    distinct_id: str = "",
    accepted_micro: int | None = None,
) -> str:
    """Return a new OAuth access token for one run of a coding task and these products.

    `distinct_id` is the user the run works for: its usage counts as theirs. The gateway lets the
    run cost at most `accepted_micro`, with all its tokens together.
    """
    return _mint(
        project,
        lifetime,
        task_run_id=task_run_id,
        products=_named(products),
        distinct_id=distinct_id,
        accepted_micro=accepted_micro,
    )


def mint_product_token(
    project: Project, product: str, lifetime: timedelta, *, distinct_id: str = ""
) -> str:
    """Return a new OAuth access token of a project for one gateway product, bound to no run."""
    return _mint(project, lifetime, products=_named([product]), distinct_id=distinct_id)


def mint_client_token(project: Project, lifetime: timedelta) -> str:
    """Return a new OAuth access token like a desktop client's, without a user's consent."""
    application, _ = OAuthApplication.objects.get_or_create(
        client_id="tollgate-by-hand",
        defaults={
            "name": "Tokens made by hand",
            "client_type": OAuthApplication.CLIENT_PUBLIC,
            "authorization_grant_type": OAuthApplication.GRANT_AUTHORIZATION_CODE,
        },
    )
    return _mint(project, lifetime, application=application)


def _named(products: Sequence[str]) -> list[str]:
    """Return the products as a list. Raises `ValueError` if it is empty.

    An empty list would mean all products of the token's kind.
    """
    if not products:
        raise ValueError("a minted token must name at least one product")
    return list(products)


def _mint(project: Project, lifetime: timedelta, **binding: Any) -> str:
    plain = generate_access_token()
    token = OAuthAccessToken(
        project=project,
        scope=LLM_GATEWAY_READ,
        expires=timezone.now() + lifetime,
        **binding,
    )
    set_token_value(token, plain)
    token.save()
    return plain


def revoke_run_tokens(task_run_id: uuid.UUID) -> None:
    """Revoke every token of a run, if it has any."""
    OAuthAccessToken.objects.filter(task_run_id=task_run_id).delete()

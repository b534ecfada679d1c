"""Describing a credential for token introspection (RFC 7662)."""

from typing import Any

from django.db import Error as DatabaseFailure
from django.utils import timezone

from projects.authentication import credential_lookup
from projects.authentication.schemes import AuthenticationUnavailable
from projects.principal import Principal


def describe(principal: Principal | None) -> dict[str, Any]:
    """Return the members of an introspection response.

    Beyond RFC 7662: `organization_id`, `project_ids` (all that the credential covers), `project_id`
    (if it covers exactly one), `task_run_id`, `products` (the gateway products it may call) and
    `token_kind`. A token minted for a user's work also has `distinct_id`, the user whose usage it
    is, and `accepted_micro`, the most that the run may cost, if somebody accepted a number.
    Personal API keys do not expire, so they have no `exp`.
    """
    if principal is None:
        return {"active": False}
    project_ids = sorted(principal.project_ids)
    described: dict[str, Any] = {
        "active": True,
        "token_type": "Bearer",
        "scope": " ".join(sorted(principal.scopes)),
        "organization_id": str(principal.organization_id),
        "project_id": project_ids[0] if len(project_ids) == 1 else None,
        "project_ids": project_ids,
        "task_run_id": None if principal.task_run_id is None else str(principal.task_run_id),
        "products": list(principal.products),
        "token_kind": principal.token_kind,
    }
    if principal.distinct_id:
        described["distinct_id"] = principal.distinct_id
    if principal.accepted_micro is not None:
        described["accepted_micro"] = principal.accepted_micro
    if principal.expires_at is not None:
        described["exp"] = int(principal.expires_at.timestamp())
    if principal.client_id is not None:
        described["client_id"] = principal.client_id
    if principal.user_id is not None:
        described["sub"] = str(principal.user_id)
    return described


def find(token: str) -> Principal | None:
    """Return the principal of a token, read from the database and never from the cache.

    Raises `AuthenticationUnavailable` if the database does not answer.
    """
    try:
        return credential_lookup.find(token, timezone.now())
    except DatabaseFailure as error:
        raise AuthenticationUnavailable from error

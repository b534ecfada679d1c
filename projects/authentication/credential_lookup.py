"""Looking up the principal of a credential in the database."""

from collections.abc import Iterable
from datetime import datetime
from types import MappingProxyType
from uuid import UUID

from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.db.models.expressions import Combinable

from projects.models import Membership, OAuthAccessToken, PersonalAPIKey, Project, User
from projects.principal import READ_SCOPES, Kind, Principal, ProjectIdentity
from projects.tokens import OAUTH_ACCESS_TOKEN, PERSONAL_API_KEY, sha256


def find(credential: str, now: datetime) -> Principal | None:
    """Return the principal of a personal API key or OAuth access token.

    Return None if it is unknown, revoked or expired, if its user is inactive or no longer a member
    of the organization, or if it names no project. Accepts any text.
    """
    if credential.startswith(PERSONAL_API_KEY):
        return _personal_api_key(sha256(credential))
    if credential.startswith(OAUTH_ACCESS_TOKEN):
        return _oauth_access_token(sha256(credential), now)
    return None


def of_session(user: User) -> Principal:
    """Return the principal of a logged-in user: all projects of the organizations they are in."""
    covered = Project.objects.filter(organization__members=user)
    return Principal(
        Kind.SESSION, scopes=READ_SCOPES, projects=_identities(covered), user_id=user.pk
    )


def _may_act(organization: str) -> Combinable:
    """Return the condition that a credential has no user, or an active user who is a member."""
    member = Membership.objects.filter(
        user=OuterRef("user"), organization=OuterRef(organization), user__is_active=True
    )
    return Q(user=None) | Exists(member)


def _identities(projects: Iterable[Project]) -> MappingProxyType[int, ProjectIdentity]:
    return MappingProxyType(
        {
            project.pk: ProjectIdentity(project.pk, project.api_token, project.organization_id)
            for project in projects
        }
    )


def _personal_api_key(digest: str) -> Principal | None:
    key = (
        PersonalAPIKey.objects.filter(_may_act("organization"), sha256=digest, revoked_at=None)
        .select_related("organization")
        .first()
    )
    if key is None:
        return None
    organization = key.organization
    covered = Project.objects.filter(organization=organization)
    return Principal(
        Kind.PERSONAL_API_KEY,
        scopes=frozenset(key.scopes),
        projects=_identities(
            covered if key.all_projects else covered.filter(personal_api_keys=key)
        ),
        credential_sha256=digest,
        organization_id=organization.pk,
        products=("slack_app_routing", "llm_gateway")
        if organization.unmetered_gateway and organization.is_active
        else ("slack_app_routing",),
        user_id=key.user_id,
    )


def _oauth_access_token(digest: str, now: datetime) -> Principal | None:
    token = (
        OAuthAccessToken.objects.filter(
            _may_act("project__organization"), token_checksum=digest, expires__gt=now
        )
        .select_related("project", "application")
        .first()
    )
    if token is None or token.project is None or not _is_meant_for_us(token):
        return None
    task_run_id: UUID | None = token.task_run_id
    return Principal(
        Kind.OAUTH,
        scopes=frozenset(token.scope.split()),
        projects=_identities([token.project]),
        credential_sha256=digest,
        organization_id=token.project.organization_id,
        expires_at=token.expires,
        task_run_id=task_run_id,
        distinct_id=token.distinct_id,
        products=tuple(token.products) or ("posthog_code",),
        user_id=token.user_id,
        client_id=token.application.client_id if token.application else None,
        accepted_micro=token.accepted_micro,
    )


def _is_meant_for_us(token: OAuthAccessToken) -> bool:
    """Return whether the token's audience (RFC 8707) includes us."""
    return any(token.allows_audience(url) for url in (settings.PUBLIC_URL, settings.GATEWAY_URL))

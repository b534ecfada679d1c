"""Who is calling, and for which projects: the result of authentication."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID

PROJECT_READ = "project:read"
LLM_GATEWAY_READ = "llm_gateway:read"
BILLING_READ = "billing:read"
TASK_READ = "task:read"
TASK_WRITE = "task:write"
READ_SCOPES = frozenset({PROJECT_READ, LLM_GATEWAY_READ, BILLING_READ, TASK_READ})
SCOPES = READ_SCOPES | {TASK_WRITE}


class Kind(StrEnum):
    """How the caller proved who it is."""

    PERSONAL_API_KEY = "personal_api_key"
    OAUTH = "oauth"
    SESSION = "session"
    SERVICE = "service"


class TokenKind(StrEnum):
    """What introspection says a credential was made for."""

    PERSONAL_API_KEY = "personal_api_key"
    OAUTH_RUN = "oauth_run"
    OAUTH_PRODUCT = "oauth_product"
    OAUTH_CLIENT = "oauth_client"


@dataclass(frozen=True, slots=True)
class ProjectIdentity:
    """The identifiers of a project that a quota request needs, so that it needs no query."""

    id: int
    api_token: str
    organization_id: UUID


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose credential was accepted.

    `organization_id` is None for the service, and for a session, because its user may belong to
    several organizations. Each covered project carries its own.
    """

    kind: Kind
    scopes: frozenset[str] = frozenset()
    projects: Mapping[int, ProjectIdentity] = field(default_factory=lambda: MappingProxyType({}))
    credential_sha256: str = ""
    organization_id: UUID | None = None
    expires_at: datetime | None = None
    task_run_id: UUID | None = None
    distinct_id: str = ""
    products: tuple[str, ...] = ()
    user_id: int | None = None
    client_id: str | None = None
    accepted_micro: int | None = None

    @property
    def is_authenticated(self) -> bool:
        """Always True; django-rest-framework asks `request.user` for it."""
        return True

    @property
    def project_ids(self) -> frozenset[int]:
        """The projects that the credential covers."""
        return frozenset(self.projects)

    @property
    def token_kind(self) -> TokenKind | None:
        """The kind that introspection reports, or None for a service or session."""
        if self.kind is Kind.PERSONAL_API_KEY:
            return TokenKind.PERSONAL_API_KEY
        if self.kind is not Kind.OAUTH:
            return None
        if self.task_run_id is not None:
            return TokenKind.OAUTH_RUN
        return TokenKind.OAUTH_PRODUCT if self.client_id is None else TokenKind.OAUTH_CLIENT


SERVICE = Principal(Kind.SERVICE)

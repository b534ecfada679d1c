"""Authentication: credentials of projects, sessions, and the gateway's service token.

If a view accepts both, list `ServiceTokenAuthentication` before `ProjectCredentialAuthentication`:
the latter refuses every bearer token that it does not know.
"""

import hmac
import time
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import Error as DatabaseFailure
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import APIException, AuthenticationFailed
from rest_framework.request import Request

from projects import credential_cache
from projects.authentication import credential_lookup
from projects.principal import SERVICE, Principal
from projects.tokens import sha256

if TYPE_CHECKING:  # rest_framework.views imports this module, for the settings' defaults
    from rest_framework.views import APIView

REALM = 'Bearer realm="tollgate"'


class AuthenticationUnavailable(APIException):
    """The database could not say whose credential it is: 503 with Retry-After."""

    status_code = 503
    default_detail = "Credentials cannot be checked right now."
    default_code = "unavailable"
    wait = 5


def bearer_token(request: Request) -> str | None:
    """Return the token of `Authorization: Bearer`, or None without that header or scheme.

    Raises `AuthenticationFailed` for a bearer header without exactly one token.
    """
    words = request.META.get("HTTP_AUTHORIZATION", "").split()
    if not words or words[0].lower() != "bearer":
        return None
    if len(words) != 2:
        raise AuthenticationFailed("The Authorization header is malformed.")
    return str(words[1])


class ProjectCredentialAuthentication(BaseAuthentication):
    """`Authorization: Bearer` with a personal API key (`phx_…`) or OAuth access token (`pha_…`).

    `request.user` is the `Principal`. A known credential costs one Redis round trip.
    """

    def authenticate(self, request: Request) -> tuple[Principal, Any] | None:
        """Return the principal, or None without a bearer token. Raises if the token is invalid."""
        token = bearer_token(request)
        if token is None:
            return None
        remembered = credential_cache.recall(sha256(token), timezone.now())
        generation = credential_cache.current_generation()
        if remembered is not None and remembered.is_current(generation):
            return remembered.principal, None
        return _look_up(token, generation), None

    def authenticate_header(self, _request: Request) -> str:
        """Return the scheme that callers should use, which makes refusals 401 instead of 403."""
        return REALM


class UnconfirmedCredentialAuthentication(ProjectCredentialAuthentication):
    """For a view that asks Redis anyway, and reads the generation in the same round trip.

    `request.auth` is the cached principal, or None if the principal was just read. The view must
    call `confirm` with the generation before it answers.
    """

    def authenticate(self, request: Request) -> tuple[Principal, Any] | None:
        """Return the cached principal without asking Redis, or look the credential up."""
        token = bearer_token(request)
        if token is None:
            return None
        remembered = credential_cache.recall(sha256(token), timezone.now())
        if remembered is not None:
            return remembered.principal, remembered
        return _look_up(token, credential_cache.current_generation()), None


def confirm(request: Request, view: "APIView", generation: str | None) -> None:
    """Confirm a cached credential with the generation just read, None if Redis did not answer.

    If the generation has changed, look the credential up in the database and check the view's
    permissions again. Raises what authentication raises.
    """
    remembered = request.auth
    if not isinstance(remembered, credential_cache.CachedPrincipal) or remembered.is_current(
        generation
    ):
        return
    token = bearer_token(request)
    assert token is not None, "only bearer tokens are cached"
    request.user = _look_up(  # type: ignore[assignment]
        token, credential_cache.current_generation()
    )
    request.auth = None
    view.check_permissions(request)


def _look_up(token: str, generation: str | None) -> Principal:
    """Return the principal from the database. Cache it if a generation was read before."""
    read_at = time.monotonic()
    try:
        principal = credential_lookup.find(token, timezone.now())
    except DatabaseFailure as error:
        raise AuthenticationUnavailable from error
    if principal is None:
        raise AuthenticationFailed("The credential is unknown, expired or revoked.")
    if generation is not None:
        credential_cache.remember(principal, generation, read_at)
    return principal


class SessionPrincipalAuthentication(SessionAuthentication):
    """A logged-in user, as the principal of the organizations they belong to."""

    def authenticate(self, request: Request) -> tuple[Principal, Any] | None:
        """Return the principal of the session's user, or None without one."""
        try:
            found = super().authenticate(request)
            return None if found is None else (credential_lookup.of_session(found[0]), None)
        except DatabaseFailure as error:
            raise AuthenticationUnavailable from error


class ServiceTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer` with one of the service tokens that the gateway shares with us."""

    def authenticate(self, request: Request) -> tuple[Principal, Any] | None:
        """Return the service principal, or None for other tokens, which another class may know."""
        token = bearer_token(request)
        if token is None:
            return None
        given = token.encode("utf-8", "surrogatepass")
        matches = [
            hmac.compare_digest(given, known.encode()) for known in settings.GATEWAY_SERVICE_TOKENS
        ]
        return (SERVICE, None) if any(matches) else None

    def authenticate_header(self, _request: Request) -> str:
        """Return the scheme that callers should use, which makes refusals 401 instead of 403."""
        return REALM

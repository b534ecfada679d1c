"""The names of our authentication schemes in the OpenAPI document."""

from typing import Any

from drf_spectacular.drainage import set_override
from drf_spectacular.extensions import OpenApiAuthenticationExtension

from projects.authentication.schemes import UnconfirmedCredentialAuthentication

# The scheme is the same as that of the parent class.
set_override(UnconfirmedCredentialAuthentication, "suppress_collision_warning", True)


class ProjectCredentialScheme(OpenApiAuthenticationExtension):
    """Personal API keys and OAuth access tokens."""

    target_class = "projects.authentication.schemes.ProjectCredentialAuthentication"
    match_subclasses = True
    name = "projectCredential"

    def get_security_definition(self, _auto_schema: Any) -> dict[str, Any]:
        """Return the bearer scheme."""
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "phx_… or pha_…",
            "description": "A personal API key, or an OAuth access token.",
        }


class ServiceTokenScheme(OpenApiAuthenticationExtension):
    """The gateway's service token."""

    target_class = "projects.authentication.schemes.ServiceTokenAuthentication"
    name = "serviceToken"

    def get_security_definition(self, _auto_schema: Any) -> dict[str, Any]:
        """Return the bearer scheme."""
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "The token that Tollgate shares with its gateway.",
        }


class SessionScheme(OpenApiAuthenticationExtension):
    """A logged-in browser."""

    target_class = "projects.authentication.schemes.SessionPrincipalAuthentication"
    name = "session"

    def get_security_definition(self, _auto_schema: Any) -> dict[str, Any]:
        """Return the cookie scheme."""
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}

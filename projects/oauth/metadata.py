"""`/.well-known/oauth-authorization-server`: what a client needs to sign in (RFC 8414)."""

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.views.decorators.http import require_safe
from oauth2_provider.settings import oauth2_settings

from projects.oauth.authorization import GRANTS

_CLIENT_AUTHENTICATION = ["none", "client_secret_basic", "client_secret_post"]


@require_safe
def authorization_server_metadata(_request: HttpRequest) -> JsonResponse:
    """Return what the endpoints are and accept. Pages of any origin may read it."""
    issuer = settings.PUBLIC_URL
    document = {
        "issuer": issuer,
        "authorization_endpoint": issuer + reverse("oauth-authorize"),
        "token_endpoint": issuer + reverse("oauth-token"),
        "revocation_endpoint": issuer + reverse("oauth-revoke"),
        "introspection_endpoint": issuer + reverse("oauth-introspect"),
        "scopes_supported": sorted(oauth2_settings.SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANTS),
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": _CLIENT_AUTHENTICATION,
        "revocation_endpoint_auth_methods_supported": _CLIENT_AUTHENTICATION,
        # Only the gateway introspects, with its service token (RFC 8414, 2).
        "introspection_endpoint_auth_methods_supported": ["Bearer"],
        "authorization_response_iss_parameter_supported": True,
        "service_documentation": issuer + reverse("docs"),
    }
    return JsonResponse(document, headers={"Access-Control-Allow-Origin": "*"})

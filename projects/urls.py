"""OAuth 2.0 below `/oauth/`. Introspection is added above, it tells of quotas as well."""

from django.urls import path
from oauth2_provider.views import RevokeTokenView, TokenView

from projects.oauth import ConsentView, refuse_nul

urlpatterns = [
    path("authorize/", refuse_nul(ConsentView.as_view()), name="oauth-authorize"),
    path("token/", refuse_nul(TokenView.as_view()), name="oauth-token"),
    path("revoke_token/", refuse_nul(RevokeTokenView.as_view()), name="oauth-revoke"),
]

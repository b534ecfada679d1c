"""OAuth 2.0 below `/oauth/`. Introspection is in `quota`, because it also reports limits."""

from django.urls import path
from oauth2_provider.views import RevokeTokenView

from projects.oauth.authorization import ConsentView, TokenView
from projects.oauth.requests import with_oauth_errors

urlpatterns = [
    path("authorize/", with_oauth_errors(ConsentView.as_view()), name="oauth-authorize"),
    path("token/", with_oauth_errors(TokenView.as_view()), name="oauth-token"),
    path("revoke_token/", with_oauth_errors(RevokeTokenView.as_view()), name="oauth-revoke"),
]

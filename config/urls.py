"""Every path of the web process."""

from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.urls import include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from console.setup import pages as setup
from console.threads import pages
from projects.authentication import openapi  # noqa: F401 - names the authentication schemes in /api/schema/
from projects.oauth.log_in_throttle import throttled
from projects.oauth.metadata import authorization_server_metadata
from quota.introspection import IntrospectionView

admin.autodiscover()

handler404 = "config.not_found.not_found"

THREAD = "admin/threads/<int:workspace_id>/<str:channel_id>/<str:thread_ts>/"

urlpatterns = [
    path("slack/", include("slack_bot.urls")),
    path("api/", include("quota.urls")),
    path("api/", include("billing.urls")),
    path("api/", include("workflows.api.urls")),
    path("oauth/introspect/", IntrospectionView.as_view(), name="oauth-introspect"),
    path("oauth/", include("projects.urls")),
    path(".well-known/oauth-authorization-server", authorization_server_metadata),
    path("login/", throttled(LoginView.as_view(template_name="projects/login.html")), name="login"),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    path("setup/", admin.site.admin_view(setup.setup_page), name="setup"),
    re_path(
        r"^setup/manifest-(?P<variant>http|socket)\.yaml$",
        admin.site.admin_view(setup.manifest_file),
        name="setup-manifest",
    ),
    path("admin/threads/", admin.site.admin_view(pages.threads_page), name="threads"),
    path(THREAD, admin.site.admin_view(pages.thread_page), name="thread"),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(pattern_name="admin:index")),
]

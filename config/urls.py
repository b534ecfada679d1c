"""Every path the web process answers, by folder."""

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

urlpatterns = [
    path("slack/", include("slack_bot.urls")),
    path("api/", include("quota.urls")),
    path("api/", include("billing.urls")),
    path("oauth/", include("projects.urls")),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    path("admin/", admin.site.urls),
    path("", include("config.probes")),
]

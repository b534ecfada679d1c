"""Paths below `/api/`."""

from django.urls import path

from billing.usage_views import ProjectUsageView
from billing.views import InsufficientRemainingView, UsageEventsView

urlpatterns = [
    path("usage_events/", UsageEventsView.as_view(), name="usage-events"),
    path(
        "insufficient_remaining/",
        InsufficientRemainingView.as_view(),
        name="insufficient-remaining",
    ),
    path("projects/<int:project_id>/usage/", ProjectUsageView.as_view(), name="project-usage"),
]

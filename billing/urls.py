"""Paths below `/api/`."""

from django.urls import path

from billing.ingestion.views import InsufficientRemainingView, UsageEventsView
from billing.reports.usage_views import ProjectUsageView

urlpatterns = [
    path("usage_events/", UsageEventsView.as_view(), name="usage-events"),
    path(
        "insufficient_remaining/",
        InsufficientRemainingView.as_view(),
        name="insufficient-remaining",
    ),
    path("projects/<int:project_id>/usage/", ProjectUsageView.as_view(), name="project-usage"),
]

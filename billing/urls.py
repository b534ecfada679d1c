"""Paths below `/api/`."""

from django.urls import path

from billing.usage_views import ProjectUsageView
from billing.views import UsageEventsView

urlpatterns = [
    path("usage_events/", UsageEventsView.as_view(), name="usage-events"),
    path("projects/<int:project_id>/usage/", ProjectUsageView.as_view(), name="project-usage"),
]

"""Paths below `/api/`."""

from django.urls import path

from billing.views import UsageEventsView

urlpatterns = [
    path("usage_events/", UsageEventsView.as_view(), name="usage-events"),
]

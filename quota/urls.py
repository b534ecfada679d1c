"""The paths of quota's endpoints below `/api/`."""

from django.urls import path

from quota.views import QuotaChangesView, QuotaLimitsView

urlpatterns = [
    path("projects/<int:project_id>/quota_limits/", QuotaLimitsView.as_view(), name="quota-limits"),
    path("quota_changes/", QuotaChangesView.as_view(), name="quota-changes"),
]

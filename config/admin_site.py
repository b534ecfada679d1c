"""The admin site."""

from django.contrib.admin import AdminSite


class TollgateAdminSite(AdminSite):
    """Django's admin under Tollgate's name."""

    site_header = "Tollgate"
    site_title = "Tollgate"
    index_title = "AI credits"

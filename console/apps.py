"""The application configurations of the console and of its admin site."""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class ConsoleConfig(AppConfig):
    """The app of the pages, templates and commands that join folders."""

    name = "console"


class TollgateAdminConfig(AdminConfig):
    """Django's admin with Tollgate's own index."""

    default_site = "console.admin_site.TollgateAdminSite"

"""The application configurations of `config` and of the admin site."""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class ConfigConfig(AppConfig):
    """Carries the commands, checks and pages that join folders."""

    name = "config"

    def ready(self) -> None:
        """Register the system checks."""
        from config import checks  # noqa: F401


class TollgateAdminConfig(AdminConfig):
    """Django's admin with Tollgate's own index."""

    default_site = "config.admin_site.TollgateAdminSite"

"""The application configurations of the console and of its admin site."""

from django.apps import AppConfig, apps
from django.contrib.admin.apps import AdminConfig
from django.db.models.signals import post_migrate


class ConsoleConfig(AppConfig):
    """The app of the pages, templates and commands that join folders."""

    name = "console"

    def ready(self) -> None:
        """Have `migrate` create the groups of rights."""
        from console.roles import create_groups

        # Django announces only applications with models.
        post_migrate.connect(create_groups, sender=apps.get_app_config("billing"))


class TollgateAdminConfig(AdminConfig):
    """Django's admin with Tollgate's own index."""

    default_site = "console.admin_site.TollgateAdminSite"

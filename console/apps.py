"""The application configurations of the console and of its admin site."""

from typing import Any

from django.apps import AppConfig, apps
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core.checks import CheckMessage, Tags, register
from django.db.models.signals import post_migrate


class ConsoleConfig(AppConfig):
    """The app of the pages, templates and commands that join folders."""

    name = "console"

    def ready(self) -> None:
        """Have `migrate` create the groups of rights."""
        from console.roles import create_groups

        # Django announces only applications with models.
        post_migrate.connect(create_groups, sender=apps.get_app_config("billing"))


class TollgateAdminConfig(SimpleAdminConfig):
    """Django's admin with Tollgate's own index.

    `config/urls.py` looks for the pages of the models, so workers don't load them.
    """

    default_site = "console.admin_site.TollgateAdminSite"

    def ready(self) -> None:
        """Register the admin's own checks."""
        register(check_dependencies, Tags.admin)
        register(_check_pages, Tags.admin)


def _check_pages(app_configs: Any, **options: Any) -> list[CheckMessage]:
    """Check the pages of every model, whether or not this process has loaded them."""
    from django.contrib import admin

    admin.autodiscover()
    return check_admin_app(app_configs, **options)

"""The application configuration of `projects`."""

from django.apps import AppConfig


class ProjectsConfig(AppConfig):
    """Identities and credentials."""

    name = "projects"
    verbose_name = "People and keys"

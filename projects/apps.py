"""The application configuration of `projects`."""

from django.apps import AppConfig


class ProjectsConfig(AppConfig):
    """Identities and credentials."""

    name = "projects"
    verbose_name = "People and keys"

    def ready(self) -> None:
        """Register the names of our authentication schemes in the OpenAPI document."""
        from projects import openapi  # noqa: F401

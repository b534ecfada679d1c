"""The application configuration of `config`."""

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """The app of the system checks."""

    name = "config"

    def ready(self) -> None:
        """Register the system checks."""
        from config import checks  # noqa: F401

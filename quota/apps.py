"""The application configuration of `quota`."""

from django.apps import AppConfig


class QuotaConfig(AppConfig):
    """The published state, and who may use credits."""

    name = "quota"
    verbose_name = "Credits"

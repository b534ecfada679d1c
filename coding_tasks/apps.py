"""The application configuration of `coding_tasks`."""

from django.apps import AppConfig


class CodingTasksConfig(AppConfig):
    """Repositories, tasks and runs."""

    name = "coding_tasks"
    verbose_name = "Coding"

"""The paths of coding tasks below `/api/`."""

from django.urls import path

from workflows.api.views import DiffView, MessagesView, PublishView, StopView, TasksView, TaskView

_TASKS = "projects/<int:project_id>/coding_tasks/"

urlpatterns = [
    path(_TASKS, TasksView.as_view(), name="coding-tasks"),
    path(f"{_TASKS}<uuid:task_id>/", TaskView.as_view(), name="coding-task"),
    path(f"{_TASKS}<uuid:task_id>/diff/", DiffView.as_view(), name="coding-task-diff"),
    path(f"{_TASKS}<uuid:task_id>/messages/", MessagesView.as_view(), name="coding-task-messages"),
    path(f"{_TASKS}<uuid:task_id>/publish/", PublishView.as_view(), name="coding-task-publish"),
    path(f"{_TASKS}<uuid:task_id>/stop/", StopView.as_view(), name="coding-task-stop"),
]

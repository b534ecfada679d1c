"""Administrators let people join tasks and remove them, on a page of the admin."""

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from coding_tasks.models import CodingTask, TaskParticipant
from projects.models import User
from tests.workflows.world import World
from workflows import participants
from workflows.models import FollowUp, Mention, Notice

ADD = reverse("admin:coding_tasks_taskparticipant_add")
LIST = reverse("admin:coding_tasks_taskparticipant_changelist")


@pytest.fixture
def task(shop: World) -> CodingTask:
    root = shop.mention()
    return CodingTask.objects.create(
        project=shop.project,
        repository=shop.project.repositories.get(),
        workspace=shop.workspace,
        channel_id="C1",
        thread_ts=root.ts,
        owner_slack_user_id="U1",
        title="Look",
        workflow_id=f"mention-T1-C1-{root.ts}",
    )


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def admin(task) -> Client:
    return client_of(User.objects.create_superuser("root", "root@example.com", "a password"))


def test_an_administrator_lets_somebody_join_and_the_thread_is_told(admin, shop, task):
    response = admin.post(ADD, {"task": str(task.pk), "slack_user_id": "U2"})
    assert response.status_code == 302
    [row] = TaskParticipant.objects.all()
    assert (row.slack_user_id, row.added_by, row.removed_at) == ("U2", "root", None)
    told = Notice.objects.get()
    assert told.text.startswith("<@U2> can write to this task too, as an administrator decided.")


def test_refused_requests_of_the_person_are_taken_up(admin, shop, task):
    asked = shop.mention("do this", thread_ts=task.thread_ts, user="U2")
    Mention.objects.filter(pk=asked.pk).update(state="refused", outcome="another user's task")
    admin.post(ADD, {"task": str(task.pk), "slack_user_id": "U2"})
    assert FollowUp.objects.get().ts == asked.ts


def test_a_guest_an_unknown_person_and_the_owner_are_refused(admin, shop, task):
    for user in ("U3", "U404", "U1"):
        response = admin.post(ADD, {"task": str(task.pk), "slack_user_id": user})
        assert response.status_code == 200
        assert response.context["errors"]
    assert not TaskParticipant.objects.exists()


def test_a_task_that_has_ended_takes_nobody(admin, shop, task):
    CodingTask.objects.update(state=CodingTask.State.DONE)
    response = admin.post(ADD, {"task": str(task.pk), "slack_user_id": "U2"})
    assert response.context["errors"]
    assert not TaskParticipant.objects.exists()


def test_an_administrator_removes_somebody(admin, task):
    participants.let_join(task, "U2", "U1", decider="<@U1>")
    [row] = TaskParticipant.objects.all()
    admin.post(LIST, {"action": "remove", "_selected_action": [str(row.pk)]})
    row.refresh_from_db()
    assert (row.added_by, row.removed_by) == ("U1", "root")
    assert not task.accepts("U2")
    assert Notice.objects.get().text.endswith("as an administrator decided.")


def test_rows_can_be_neither_changed_nor_deleted(admin, task):
    participants.let_join(task, "U2", "U1", decider="<@U1>")
    row = TaskParticipant.objects.get()
    change = reverse("admin:coding_tasks_taskparticipant_change", args=[row.pk])
    assert admin.get(change).status_code == 200
    assert admin.post(change, {"slack_user_id": "U3"}).status_code == 403
    delete = reverse("admin:coding_tasks_taskparticipant_delete", args=[row.pk])
    assert admin.post(delete, {"post": "yes"}).status_code == 403


def test_staff_without_the_right_let_nobody_join_and_remove_nobody(task):
    viewer = User.objects.create_user("viewer", "v@example.com", "a password", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_taskparticipant"))
    participants.let_join(task, "U2", "U1", decider="<@U1>")
    client = client_of(viewer)
    assert client.post(ADD, {"task": str(task.pk), "slack_user_id": "U4"}).status_code == 403
    row = TaskParticipant.objects.get()
    client.post(LIST, {"action": "remove", "_selected_action": [str(row.pk)]})
    assert task.accepts("U2")

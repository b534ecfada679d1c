"""The admin's pages of repositories, tasks and runs."""

import uuid
import zlib

import pytest
from django.contrib.auth import get_user_model
from django.urls import reverse
from django.utils import timezone

from billing.models import UsageEvent
from coding_tasks import api_tasks
from coding_tasks.api_tasks import NewTask
from coding_tasks.models import (
    ChannelDefault,
    CodingTask,
    Repository,
    RunChange,
    TaskBranch,
    TaskRun,
)


@pytest.fixture
def admin(client, db):
    user = get_user_model().objects.create_superuser("admin", "admin@example.com", "x")
    client.force_login(user)
    return client


@pytest.fixture
def make_task(project, workspace, repository):
    def make(number: int = 1, runs: int = 1) -> CodingTask:
        task = CodingTask.objects.create(
            project=project,
            repository=repository,
            workspace=workspace,
            channel_id="C1",
            thread_ts=f"{number}.1",
            owner_slack_user_id="U1",
            title=f"Explain cart {number}",
            permalink="https://acme.slack.com/archives/C1/p1",
            workflow_id=f"mention-T1-C1-{number}.1",
        )
        for turn in range(runs):
            TaskRun.objects.create(
                task=task, message_ts=f"{number}.{turn}", request="a request", answer="an answer"
            )
        return task

    return make


def book(run: TaskRun, micro: int) -> None:
    UsageEvent.objects.create(
        uuid=uuid.uuid4(),
        project=run.task.project,
        task_run_id=run.pk,
        occurred_at=timezone.now(),
        booked_at=timezone.now(),
        credits_micro=micro,
        cost_usd="0.1",
        billable=True,
        product="slack_app",
        payload_sha256="0" * 64,
    )


def test_tasks_are_listed_with_credits_and_a_link_to_their_workflow(admin, make_task):
    first, second = make_task(1, runs=2), make_task(2)
    for run in first.runs.all():
        book(run, 6_000_000)
    page = admin.get(reverse("admin:coding_tasks_codingtask_changelist")).content.decode()
    assert "12.00" in page
    assert 'href="http://127.0.0.1:8233/namespaces/default/workflows/mention-T1-C1-1.1"' in page
    assert second.title in page


def test_runs_are_listed_with_credits(admin, make_task):
    book(make_task().runs.get(), 1)
    page = admin.get(reverse("admin:coding_tasks_taskrun_changelist")).content.decode()
    assert "&lt;0.01" in page


def test_a_tasks_page_shows_its_turns_and_is_read_only(admin, make_task):
    task = make_task(runs=2)
    book(task.runs.first(), 3_000_000)
    url = reverse("admin:coding_tasks_codingtask_change", args=[task.pk])
    page = admin.get(url).content.decode()
    assert page.count("an answer") == 2
    assert "3.00" in page
    for run in task.runs.all():
        assert reverse("admin:coding_tasks_taskrun_change", args=[run.pk]) in page
    assert 'name="_save"' not in page
    assert admin.post(url, {"title": "x"}).status_code == 403


def test_a_runs_page_shows_request_and_answer(admin, make_task):
    run = make_task().runs.get()
    book(run, 2_500_000)
    page = admin.get(reverse("admin:coding_tasks_taskrun_change", args=[run.pk])).content.decode()
    assert "a request" in page
    assert "an answer" in page
    assert "<td>2.50</td></tr>" in page  # its one call


def test_a_runs_page_leads_to_its_change_and_its_branch(admin, make_task):
    task = make_task()
    run = task.runs.get()
    branch = TaskBranch.objects.create(task=task, name="tollgate/explain-cart")
    change = RunChange.objects.create(
        run=run,
        commit="ab" * 20,
        branch=branch.name,
        files=1,
        added=1,
        removed=0,
        packed_patch=zlib.compress(b"+<b>hello"),
        description=b"",
        note="Not pushed. It is protected.",
    )
    pages = {
        reverse("admin:coding_tasks_taskrun_change", args=[run.pk]): (
            reverse("admin:coding_tasks_runchange_change", args=[change.pk]),
        ),
        reverse("admin:coding_tasks_codingtask_change", args=[task.pk]): (
            reverse("admin:coding_tasks_taskbranch_change", args=[branch.pk]),
        ),
        reverse("admin:coding_tasks_runchange_change", args=[change.pk]): (
            reverse("admin:coding_tasks_taskrun_change", args=[run.pk]),
            "+&lt;b&gt;hello",
            "Not pushed. It is protected.",
        ),
        reverse("admin:coding_tasks_taskbranch_change", args=[branch.pk]): (branch.name,),
    }
    for url, shown in pages.items():
        page = admin.get(url).content.decode()
        assert [text for text in shown if text not in page] == []
        assert 'name="_save"' not in page
        assert admin.post(url, {"name": "x"}).status_code == 403
    for model in ("taskbranch", "runchange"):
        page = admin.get(reverse(f"admin:coding_tasks_{model}_changelist")).content.decode()
        assert branch.name in page


@pytest.mark.parametrize("model", ["codingtask", "taskrun", "repository", "channeldefault"])
def test_a_longer_list_costs_no_more_queries(
    admin, make_task, workspace, project, model, django_assert_max_num_queries
):
    def fill(start: int, end: int) -> None:
        for number in range(start, end):
            task = make_task(number, runs=2)
            book(task.runs.first(), 1_000_000)
            repository = Repository.objects.create(
                project=project, full_name=f"acme/r{number}", clone_url="https://h/x"
            )
            ChannelDefault.objects.create(
                workspace=workspace, channel_id=f"C{number}", repository=repository
            )

    url = reverse(f"admin:coding_tasks_{model}_changelist")
    fill(1, 2)
    admin.get(url)
    with django_assert_max_num_queries(100) as few:
        admin.get(url)
    fill(2, 12)
    with django_assert_max_num_queries(len(few.captured_queries)):
        assert admin.get(url).status_code == 200


def test_a_longer_conversation_costs_no_more_queries(
    admin, make_task, django_assert_max_num_queries
):
    short, long = make_task(1, runs=1), make_task(2, runs=8)
    with django_assert_max_num_queries(100) as few:
        admin.get(reverse("admin:coding_tasks_codingtask_change", args=[short.pk]))
    with django_assert_max_num_queries(len(few.captured_queries)):
        admin.get(reverse("admin:coding_tasks_codingtask_change", args=[long.pk]))


@pytest.mark.parametrize(
    ("model", "query", "found"),
    [
        ("codingtask", "cart 2", 1),
        ("codingtask", "mention-T1-C1-1.1", 1),
        ("codingtask", "acme/shop", 2),
        ("codingtask", "nothing", 0),
        ("taskrun", "mention-T1-C1-2.1", 1),
        ("repository", "shop", 1),
    ],
)
def test_searching(admin, make_task, model, query, found):
    make_task(1)
    make_task(2)
    response = admin.get(reverse(f"admin:coding_tasks_{model}_changelist"), {"q": query})
    assert response.context["cl"].result_count == found


def test_filtering_by_state(admin, make_task):
    make_task(1)
    url = reverse("admin:coding_tasks_codingtask_changelist")
    for state, found in (("active", 1), ("done", 0)):
        response = admin.get(url, {"state__exact": state})
        assert response.context["cl"].result_count == found


def test_an_address_that_git_must_not_get_is_refused_with_the_reason(admin, project):
    url = reverse("admin:coding_tasks_repository_add")
    fields = {"project": project.pk, "full_name": "acme/x", "clone_url": "ext::sh -c id"}
    page = admin.post(url, fields).content.decode()
    assert "This address cannot be cloned" in page
    assert not Repository.objects.exists()
    assert admin.post(url, fields | {"clone_url": "https://h/x"}).status_code == 302


def test_somebody_who_is_not_staff_sees_nothing(client, make_task):
    make_task()
    stranger = get_user_model().objects.create_user("stranger", "s@example.com", "x")
    client.force_login(stranger)
    response = client.get(reverse("admin:coding_tasks_codingtask_changelist"))
    assert response.status_code == 302
    assert "login" in response["Location"]


@pytest.mark.parametrize(("username", "owner"), [("ada", "ada"), (None, "a program")])
def test_a_task_over_the_api_has_its_pages(admin, project, repository, username, owner):
    user = username and get_user_model().objects.create_user(username)
    new = NewTask(repository, CodingTask.Origin.API, user.pk if user else None, "Explain it")
    run = api_tasks.create(new)
    for model, row in (("codingtask", run.task), ("taskrun", run)):
        for url in (
            reverse(f"admin:coding_tasks_{model}_changelist"),
            reverse(f"admin:coding_tasks_{model}_change", args=[row.pk]),
        ):
            assert "Explain it" in admin.get(url).content.decode()
    page = admin.get(reverse("admin:coding_tasks_codingtask_change", args=[run.task.pk]))
    assert owner in page.content.decode()
    listed = admin.get(reverse("admin:coding_tasks_codingtask_changelist"), {"q": owner})
    assert listed.status_code == 200

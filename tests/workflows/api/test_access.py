"""Who may start, read, continue and stop tasks, and which requests are malformed."""

import json
import uuid
from datetime import timedelta

import pytest

from billing.organizations import create_organization, create_project
from coding_tasks.models import CodingTask, Repository, TaskRun
from projects.authentication import credentials
from projects.models import OAuthAccessToken, PersonalAPIKey, User
from tests.workflows.api.conftest import Caller, caller_for
from tests.workflows.world import World

HOUR = timedelta(hours=1)


@pytest.fixture
def task(caller: Caller) -> dict:
    return caller.started()


def every_answer(caller: Caller, task: dict) -> dict[str, int]:
    """Return the status of each endpoint."""
    return {
        "create": caller.create().status_code,
        "list": caller.get().status_code,
        "read": caller.get(f"{task['id']}/").status_code,
        "diff": caller.get(f"{task['id']}/diff/").status_code,
        "continue": caller.message(task, "go on").status_code,
        "publish": caller.post(f"{task['id']}/publish/", {}).status_code,
        "stop": caller.post(f"{task['id']}/stop/", {}).status_code,
    }


def assert_untouched() -> None:
    """Check that nothing was started, continued or stopped."""
    assert CodingTask.objects.get().state == CodingTask.State.ACTIVE
    assert TaskRun.objects.get().state == TaskRun.State.QUEUED


@pytest.mark.parametrize("token", ["", "phx_unknown", "pha_unknown", "service-token"])
def test_without_a_valid_credential_nobody_gets_in(caller: Caller, task: dict, token: str):
    nobody = Caller(caller.client, caller.project_id, token)
    assert set(every_answer(nobody, task).values()) == {401}
    assert_untouched()


def test_a_revoked_key_is_refused(caller: Caller, task: dict):
    credentials.revoke_personal_api_key(PersonalAPIKey.objects.get())
    assert set(every_answer(caller, task).values()) == {401}
    assert_untouched()


@pytest.mark.parametrize("leave", ["deactivated", "no member any more"])
def test_a_user_who_has_left_is_refused(caller: Caller, task: dict, member: User, leave: str):
    if leave == "deactivated":
        member.is_active = False
        member.save()
    else:
        member.organizations.clear()
        member.save()
    assert set(every_answer(caller, task).values()) == {401}
    assert_untouched()


def test_another_organization_finds_nothing(shop: World, caller: Caller, task: dict):
    theirs = create_project(create_organization("Stranger"), "Theirs")
    _, key = credentials.issue_personal_api_key(theirs.organization, "k", ["task:write"])
    stranger = Caller(caller.client, shop.project.pk, key)
    assert set(every_answer(stranger, task).values()) == {404}
    at_home = Caller(caller.client, theirs.pk, key)
    statuses = every_answer(at_home, task)
    assert statuses.pop("list") == 200
    assert at_home.get().json()["results"] == []
    assert set(statuses.values()) == {404}
    assert_untouched()


def test_a_key_of_a_sibling_project_is_refused(shop: World, caller: Caller, task: dict):
    sibling = create_project(shop.project.organization, "Sibling")
    _, key = credentials.issue_personal_api_key(
        shop.project.organization, "k", ["task:write"], [sibling]
    )
    assert set(every_answer(Caller(caller.client, shop.project.pk, key), task).values()) == {403}
    at_home = every_answer(Caller(caller.client, sibling.pk, key), task)
    assert at_home.pop("list") == 200
    assert set(at_home.values()) == {404}
    assert_untouched()


def test_reading_does_not_allow_writing(shop: World, caller: Caller, task: dict, member: User):
    reader = caller_for(shop, caller.client, user=member, scopes=("task:read",))
    assert every_answer(reader, task) == {
        "create": 403, "list": 200, "read": 200, "diff": 200, "continue": 403,
        "publish": 403, "stop": 403,
    }  # fmt: skip
    assert "task:write" in reader.create().json()["detail"]
    assert_untouched()


@pytest.mark.parametrize("scope", ["project:read", "llm_gateway:read", "billing:read"])
def test_other_scopes_allow_nothing(shop: World, caller: Caller, task: dict, scope: str):
    other = caller_for(shop, caller.client, user=None, scopes=(scope,))
    assert set(every_answer(other, task).values()) == {403}


def test_the_token_of_a_run_starts_no_further_task(shop: World, caller: Caller, task: dict):
    token = credentials.mint_run_token(shop.project, uuid.uuid4(), ["posthog_code"], HOUR)
    assert set(every_answer(Caller(caller.client, shop.project.pk, token), task).values()) == {403}
    assert_untouched()


def test_only_the_owner_continues_and_stops_a_task(shop: World, caller: Caller, task: dict):
    colleague = User.objects.create_user("eve", "eve@example.com", "a long password")
    shop.project.organization.members.add(colleague)
    for user in (colleague, None):
        other = caller_for(shop, caller.client, user=user)
        assert other.get(f"{task['id']}/").status_code == 200
        assert other.get(f"{task['id']}/diff/").status_code == 403
        assert other.message(task, "go on").status_code == 403
        assert other.post(f"{task['id']}/stop/", {}).status_code == 403
    assert_untouched()


def test_a_desktop_client_starts_tasks_with_its_oauth_token(
    shop: World, caller: Caller, member: User
):
    token = credentials.mint_client_token(shop.project, HOUR)
    OAuthAccessToken.objects.update(scope="task:write", user=member)
    desktop = Caller(caller.client, shop.project.pk, token)
    made = desktop.started(origin="desktop")
    assert (made["origin"], made["owner"]) == ("desktop", "ada")


def test_a_session_is_not_enough(caller: Caller, member: User):
    caller.client.force_login(member)
    nobody = Caller(caller.client, caller.project_id, "")
    assert nobody.get().status_code == 401


def test_tasks_of_slack_threads_are_not_shown(shop: World, caller: Caller):
    task = CodingTask.objects.create(
        project=shop.project,
        repository=Repository.objects.get(),
        workspace=shop.workspace,
        channel_id="C1",
        thread_ts="1.1",
        owner_slack_user_id="U1",
        title="private",
        workflow_id="mention-T1-C1-1.1",
    )
    assert caller.get().json()["results"] == []
    assert set(every_answer(caller, {"id": str(task.pk)}).values()) == {
        200, 201, 404
    }  # fmt: skip
    assert caller.get(f"{task.pk}/").status_code == 404
    task.refresh_from_db()
    assert task.state == CodingTask.State.ACTIVE


# --- What is sent --------------------------------------------------------------------------------
@pytest.mark.parametrize("named", ["acme/unknown", "Acme/shop ", "other/repo", 10**18, 10**30])
def test_an_unknown_repository_is_refused(caller: Caller, named: object):
    assert caller.create(repository=named).status_code in (400, 404)
    assert not CodingTask.objects.exists()


def test_another_projects_repository_is_as_unknown_as_a_missing_one(caller: Caller):
    theirs = create_project(create_organization("Stranger"), "Theirs")
    repository = Repository.objects.create(
        project=theirs, full_name="theirs/secret", clone_url="https://example.com/theirs.git"
    )
    missing = caller.create(repository=repository.pk + 1000)
    for named in (repository.full_name, repository.pk):
        answer = caller.create(repository=named)
        assert (answer.status_code, answer.json()) == (404, missing.json())
    assert not CodingTask.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"text": ""},
        {"text": " \n\t"},
        {"text": "x" * 20_001},
        {"text": "a\0b"},
        {"text": "\ud800"},
        {"text": None},
        {"text": ["a"]},
        {"text": {"a": 1}},
        {"repository": True},
        {"repository": ["acme/shop"]},
        {"repository": "acme"},
        {"repository": "../../etc"},
        {"repository": "acme/shop\n"},
        {"repository": "a\0/b"},
        {"repository": -1},
        {"repository": 1.5},
        {"repository": None},
        {"agent": "unheard-of"},
        {"agent": "--help"},
        {"agent": None},
        {"model": "a b"},
        {"model": "m\n"},
        {"model": "--model"},
        {"model": "x" * 101},
        {"origin": "slack"},
        {"origin": "mars"},
    ],
)
def test_a_body_that_makes_no_sense_is_refused(caller: Caller, fields: dict):
    answer = caller.create(**{"text": "hello"} | fields)
    assert answer.status_code == 400, answer.content
    assert set(answer.json()) == set(fields)
    assert not CodingTask.objects.exists()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b"[" * 100_000, b'{"a":' * 100_000]
)
def test_a_body_that_is_not_a_json_object_is_refused(caller: Caller, task: dict, body: bytes):
    for path in ("", f"{task['id']}/messages/"):
        assert caller.post(path, body).status_code == 400
    assert_untouched()


def test_another_content_type_is_refused(caller: Caller):
    answer = caller.client.post(
        caller.tasks, {"text": "hello"}, headers={"Authorization": f"Bearer {caller.token}"}
    )
    assert answer.status_code == 415


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "ü", "a b"])
def test_a_malformed_idempotency_key_is_refused(caller: Caller, key: str):
    body = {"repository": "acme/shop", "text": "hello"}
    answer = caller.post("", body, idempotency_key=key)
    assert answer.status_code == 400
    assert list(answer.json()) == ["Idempotency-Key"]
    assert not CodingTask.objects.exists()


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_tasks_are_not_changed_or_deleted(caller: Caller, task: dict, method: str):
    headers = {"Authorization": f"Bearer {caller.token}"}
    for path in (caller.tasks, f"{caller.tasks}{task['id']}/"):
        assert getattr(caller.client, method)(path, headers=headers).status_code == 405


def test_the_longest_text_is_taken_whole(caller: Caller):
    text = "\U0001f600" * 20_000
    task = caller.started(text)
    assert task["runs"][0]["request"] == text
    assert json.loads(json.dumps(task)) == task

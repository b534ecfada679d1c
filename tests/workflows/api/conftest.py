"""A caller of the API: a member with a key for the shop's project."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from projects import credential_cache
from projects.authentication import credentials
from projects.models import User
from tests.conftest import wait_until
from tests.workflows.world import World
from workflows.api_task_types import ApiTaskInput


@dataclass
class Caller:
    """Calls the endpoints of one project with one credential."""

    client: Client
    project_id: int
    token: str

    @property
    def tasks(self) -> str:
        return f"/api/projects/{self.project_id}/coding_tasks/"

    def get(self, path: str = "", **query: str) -> HttpResponse:
        return self.client.get(self.tasks + path, query, headers=self._headers({}))

    def post(self, path: str, body: Any, **headers: str) -> HttpResponse:
        return self.client.post(
            self.tasks + path,
            body,
            content_type="application/json",
            headers=self._headers({name.replace("_", "-"): headers[name] for name in headers}),
        )

    def create(self, text: str = "what is this?", *, key: str = "", **fields: Any) -> HttpResponse:
        body = {"repository": "acme/shop", "text": text, **fields}
        return self.post("", body, **({"idempotency_key": key} if key else {}))

    def started(self, text: str = "what is this?", **fields: Any) -> dict[str, Any]:
        """Start a task; return it."""
        answer = self.create(text, **fields)
        assert answer.status_code == 201, answer.content
        return answer.json()

    def read(self, task: dict[str, Any]) -> dict[str, Any]:
        answer = self.get(f"{task['id']}/")
        assert answer.status_code == 200, answer.content
        return answer.json()

    def wait_for(self, task: dict[str, Any], *states: str) -> dict[str, Any]:
        """Wait until the task is in one of the states; return it."""
        wait_until(
            lambda: self.read(task)["state"] in states, what=f"the task being {' or '.join(states)}"
        )
        return self.read(task)

    def wait_for_run(self, task: dict[str, Any], state: str) -> dict[str, Any]:
        """Wait until the task's last run is in a state; return the run."""
        wait_until(lambda: self.read(task)["runs"][-1]["state"] == state, what=f"a {state} run")
        return self.read(task)["runs"][-1]

    def message(self, task: dict[str, Any], text: str, *, key: str = "") -> HttpResponse:
        headers = {"idempotency_key": key} if key else {}
        return self.post(f"{task['id']}/messages/", {"text": text}, **headers)

    def stop(self, task: dict[str, Any]) -> dict[str, Any]:
        answer = self.post(f"{task['id']}/stop/", {})
        assert answer.status_code == 200, answer.content
        return answer.json()

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", **more} if self.token else more


@pytest.fixture(autouse=True)
def _nothing_remembered(redis_client) -> None:
    credential_cache.forget_all()


@pytest.fixture
def member(world: World) -> User:
    user = User.objects.create_user("ada", "ada@example.com", "a long password")
    world.project.organization.members.add(user)
    return user


@pytest.fixture
def caller(shop: World, member: User, client: Client) -> Caller:
    """A member of the shop's organization, whose key may start tasks."""
    return caller_for(shop, client, user=member)


def caller_for(
    world: World, client: Client, *, user: User | None, scopes: tuple[str, ...] = ("task:write",)
) -> Caller:
    _, plain = credentials.issue_personal_api_key(
        world.project.organization, "key", scopes, [world.project], user
    )
    return Caller(client, world.project.pk, plain)


@pytest.fixture
def hurried_tasks(monkeypatch) -> Callable[..., None]:
    """Return a function that gives new workflows of API tasks other times and attempts."""

    def hurry(**fields: float) -> None:
        def impatient(task_id: str) -> ApiTaskInput:
            return ApiTaskInput(task_id, **fields)

        monkeypatch.setattr("workflows.temporal.client.ApiTaskInput", impatient)

    return hurry

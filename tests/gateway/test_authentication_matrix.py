"""No billable call of a limited project passes.

Tested for every way to send a credential × every answer about it × every answer about the quota,
with the gateway's Redis and without.
"""

import itertools
from collections.abc import Iterator

import pytest

from devstack.servers import answers, free_port
from tests import settings as suite
from tests.conftest import wait_until
from tests.gateway.bodies import CHAT, chat_body
from tests.gateway.conftest import DENIED, World, gateway_program, messages_body, serving, works


def nobodys(token: str) -> str:
    """Return a well-formed token that does not exist."""
    return f"pha_{token[:3:-1]}"


# name → headers, and whether the limited project's token is the credential that counts
HEADERS = {
    "nothing": (lambda token: {}, False),
    "Bearer": (lambda token: {"authorization": f"Bearer {token}"}, True),
    "bearer in lower case": (lambda token: {"authorization": f"bearer {token}"}, True),
    "x-api-key": (lambda token: {"x-api-key": token}, True),
    "both the same": (
        lambda token: {"authorization": f"Bearer {token}", "x-api-key": token},
        True,
    ),
    "Bearer and another x-api-key": (
        lambda token: {"authorization": f"Bearer {token}", "x-api-key": nobodys(token)},
        True,
    ),
    "another Bearer and x-api-key": (
        lambda token: {"authorization": f"Bearer {nobodys(token)}", "x-api-key": token},
        False,
    ),
    "empty Bearer and x-api-key": (
        lambda token: {"authorization": "Bearer", "x-api-key": token},
        True,
    ),
    "Basic": (lambda token: {"authorization": f"Basic {token}"}, False),
    "Basic and x-api-key": (
        lambda token: {"authorization": "Basic eDp5", "x-api-key": token},
        False,
    ),
    "two tokens in one": (
        lambda token: {"authorization": f"Bearer {nobodys(token)}, Bearer {token}"},
        False,
    ),
    "not ASCII": (lambda token: {"x-api-key": "ключ".encode()}, False),
}
INTROSPECTION = {
    "active": None,
    "inactive": (200, {"active": False}),
    "unauthorized": (401, {"detail": "no"}),
    "forbidden": (403, {"detail": "no"}),
    "broken": (500, {}),
    "malformed": (200, b"{"),
    "without a project": (200, {"active": True, "scope": "llm_gateway:read",
                                "token_kind": "oauth_run", "organization_id": "x",
                                "products": ["slack_app"]}),
}  # fmt: skip
QUOTA = {
    "limited": None,
    "unauthorized": (401, {}),
    "forbidden": (403, {}),
    "missing": (404, {}),
    "broken": (500, {}),
    "malformed": (200, b"<html>"),
    "without the bucket": (200, {"limited": {}, "organization_id": "x"}),
}


def expected(headers: str, introspection: str, quota: str, redis: bool) -> set[int]:
    """Return the statuses that the caller may get. None of them permits the call."""
    if not HEADERS[headers][1] and headers != "another Bearer and x-api-key":
        return {401}
    if introspection == "inactive":
        return {401, 503}
    if introspection == "without a project":
        return {403, 503}
    if introspection != "active":
        return {503}
    if headers == "another Bearer and x-api-key":
        return {401, 503}
    # A failed question is not repeated at once, so other callers may get a 503 too.
    return {DENIED, 503} if quota == "limited" and redis else {503}


def attempt(world: World, headers: str, introspection: str, quota: str) -> int:
    """Make the call of one case, and assert that it never reached the provider."""
    project = world.tollgate.project(credits=1000)
    world.tollgate.limit(project)
    token = world.tollgate.token(project)
    for what, answer in (
        ("introspect", INTROSPECTION[introspection]),
        ("quota", QUOTA[quota]),
    ):
        world.tollgate.mend(what)
        if answer is not None:
            world.tollgate.fail(what, *answer)
    before = len(world.provider.requests)
    anthropic = len(headers) % 2 == 0
    answer = world.post(
        None,
        "/slack_app/v1/messages" if anthropic else CHAT,
        messages_body() if anthropic else chat_body(),
        headers=HEADERS[headers][0](token),
    )
    assert len(world.provider.requests) == before, "a limited project's call passed"
    assert answer.json()["error"]["message"]
    assert token not in answer.text
    return answer.status_code


@pytest.fixture(scope="module")
def broken(_fragile_world: World) -> Iterator[World]:
    """A gateway whose Django may answer anything. It is repaired after the last case."""
    yield _fragile_world
    _fragile_world.tollgate.mend()
    wait_until(lambda: works(_fragile_world), what="calls being admitted")


@pytest.mark.case("G3")
@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("introspection", INTROSPECTION)
def test_no_billable_call_of_a_limited_project_passes(
    broken: World, headers: str, introspection: str
) -> None:
    for quota in QUOTA:
        status = attempt(broken, headers, introspection, quota)
        assert status in expected(headers, introspection, quota, redis=True), quota


@pytest.fixture(scope="module")
def without_redis(broken: World) -> Iterator[World]:
    """A second gateway, whose Redis does not exist."""
    port, nowhere = free_port(), free_port()
    program = gateway_program(
        port,
        f"redis://127.0.0.1:{nowhere}/0",
        broken.tollgate.url,
        broken.provider.url,
    )
    program = type(program)(
        program.name, program.argv, lambda: answers(f"http://127.0.0.1:{port}/_health"),
        program.environment, port,
    )  # fmt: skip
    with (
        serving(program, suite.DIRECTORY / "gateway-without-redis.log"),
        broken.at(f"http://127.0.0.1:{port}") as world,
    ):
        yield world


@pytest.mark.parametrize("headers", HEADERS)
def test_without_redis_no_billable_call_of_a_limited_project_passes(
    without_redis: World, headers: str
) -> None:
    for introspection, quota in itertools.product(INTROSPECTION, ("limited", "forbidden")):
        status = attempt(without_redis, headers, introspection, quota)
        assert status in expected(headers, introspection, quota, redis=False)


@pytest.mark.case("G16")
def test_without_redis_billable_calls_wait_and_unmetered_ones_pass(without_redis: World) -> None:
    world = without_redis
    world.tollgate.mend()
    project = world.tollgate.project(credits=100)
    unmetered = world.tollgate.token(project, "llm_gateway")
    path = "/llm_gateway/v1/messages"
    wait_until(lambda: world.post(unmetered, path).status_code == 200, what="unmetered calls")
    answer = world.post(world.tollgate.token(project))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"]["reason"] == "store_unavailable"
    assert world.get("/_ready").status_code == 503
    assert world.metric("tollgate_gateway_redis_failures_total") > 0

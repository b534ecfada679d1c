"""Status, headers and body of a denial, by API, operator and caller."""

from collections.abc import Iterator

import httpx
import pytest
from environs import EnvError

from gateway.errors import Dialect, Refusal
from gateway.refusals import denial_status
from gateway.settings import read_denial_status
from tests.gateway.bodies import CHAT, RESPONSES, chat_body
from tests.gateway.conftest import World, messages_body, world_of
from tests.gateway.fake_tollgate import RESETS_AT, FakeProject

MESSAGES = "/slack_app/v1/messages"
BODIES = {MESSAGES: None, CHAT: chat_body(), RESPONSES: {"model": "gpt-4o", "input": "Hi"}}
APIS = list(BODIES)
DENIAL = (
    "Your team has used its monthly Tollgate AI credits. They reset on 2126-12-01. "
    "Top up at https://billing.example.com/credits to continue."
)
COMMON = {
    "message": DENIAL,
    "reason": "billable_credits",
    "cause": "limit_reached",
    "billing_url": "https://billing.example.com/credits",
}
RESET_SECONDS = 4_951_756_800  # RESETS_AT
CODEX = {"originator": "codex_exec"}


def body_of(path: str, status: int) -> dict:
    """Return the expected body of a denial without the request's id."""
    if path == MESSAGES:
        kind = {402: "billing_error", 429: "rate_limit_error"}[status]
        return {"type": "error", "error": {"type": kind, "resets_at": RESETS_AT, **COMMON}}
    error = {"type": "insufficient_quota", "code": "insufficient_quota", "param": None, **COMMON}
    if path == CHAT:
        return {"error": {**error, "resets_at": RESETS_AT}}
    return {"error": {**error, "resets_at": RESET_SECONDS}, "resets_at": RESETS_AT}


@pytest.fixture
def limited(world: World) -> FakeProject:
    project = world.tollgate.project(credits=100)
    world.tollgate.limit(project)
    return project


def ask(world: World, project: FakeProject, path: str, **headers: str) -> httpx.Response:
    token = world.tollgate.token(project)
    return world.post(
        token, path, BODIES[path], headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def assert_refused(answer: httpx.Response, path: str, status: int) -> None:
    """Assert that an answer is a denial that says not to retry."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers.get("retry-after") == {402: None, 429: "60"}[status]
    document = answer.json()
    if path == MESSAGES:
        assert document.pop("request_id") == answer.headers["request-id"]
    assert document == body_of(path, status)


@pytest.mark.case("G5")
@pytest.mark.parametrize("path", APIS)
def test_a_limited_team_is_refused_in_the_shape_of_the_api(world, limited, path) -> None:
    before = len(world.provider.requests)
    assert_refused(ask(world, limited, path), path, 429)
    assert len(world.provider.requests) == before


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize(
    "agent",
    [
        "opencode/1.18.33 ai-sdk/provider-utils/4.0.46 runtime/bun/1.3.14",
        "ai/6.0.326 ai-sdk/provider-utils/4.0.65 runtime/node.js/v20.20.2",
        "litellm/1.110.2",
        "lm15/stdlib",
    ],
)
def test_an_application_that_retries_every_429_gets_402(world, limited, path, agent) -> None:
    assert_refused(ask(world, limited, path, user_agent=agent), path, 402)


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize(
    "headers",
    [
        {"user_agent": "OpenAI/Python 3.57.0", "x_stainless_lang": "python"},
        {"user_agent": "claude-cli/2.1.197 (external, cli)", "x_stainless_lang": "js"},
        {"user_agent": "curl/8.5.0"},
        {"user_agent": "python-httpx2/2.16.2"},
        {"user_agent": "Python/3.11 aiohttp/3.13.2"},
        {"user_agent": "Python-urllib/3.11"},
        {"user_agent": ""},
    ],
)
def test_an_sdk_that_obeys_the_headers_and_a_plain_program_get_429(
    world, limited, path, headers
) -> None:
    assert_refused(ask(world, limited, path, **headers), path, 429)


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize("status", [402, 429])
def test_a_caller_gets_the_status_that_it_asks_for(world, limited, path, status) -> None:
    answer = ask(world, limited, path, x_tollgate_denial_status=str(status))
    assert_refused(answer, path, status)


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize(
    "wish", ["", "200", "403", "4 29", "429.0", "402, 429", "429\t,", "x" * 5000]
)
def test_an_unknown_status_is_refused(world, path, wish) -> None:
    project = world.tollgate.project(credits=1000)
    before = len(world.provider.requests)
    answer = ask(world, project, path, x_tollgate_denial_status=wish)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "x-tollgate-denial-status must be 402 or 429."
    assert len(world.provider.requests) == before


def test_two_statuses_at_once_are_refused(world: World) -> None:
    token = world.tollgate.token(world.tollgate.project(credits=1000))
    headers = [("authorization", f"Bearer {token}")]
    for wishes, status in ((("402", "429"), 400), (("429", "429"), 200)):
        answer = world.http.post(
            MESSAGES,
            headers=[*headers, *(("X-Tollgate-Denial-Status", wish) for wish in wishes)],
            json=messages_body(),
        )
        assert answer.status_code == status


def test_the_status_header_is_not_forwarded(world: World) -> None:
    project = world.tollgate.project(credits=1000)
    assert ask(world, project, MESSAGES, x_tollgate_denial_status="429").status_code == 200
    assert "x-tollgate-denial-status" not in world.provider.requests[-1].headers


def test_codex_gets_a_429_whose_text_it_shows(world, limited) -> None:
    answer = ask(world, limited, RESPONSES, **CODEX)
    assert answer.status_code == 429
    assert answer.headers["x-codex-promo-message"] == DENIAL.removesuffix(".")
    error = answer.json()["error"]
    assert (error["type"], error["resets_at"]) == ("usage_limit_reached", RESET_SECONDS)
    assert (error["code"], error["message"]) == ("insufficient_quota", DENIAL)
    assert_refused(
        ask(world, limited, RESPONSES, **CODEX, x_tollgate_denial_status="402"), RESPONSES, 402
    )
    assert_refused(ask(world, limited, CHAT, **CODEX), CHAT, 429)


def test_the_text_for_codex_fits_into_a_header_whatever_the_bot_is_called() -> None:
    refusal = Refusal(
        429, "billable_credits", "Gürtel\r\nset-cookie: x=1\x00 is empty.", denial=True
    )
    fitted = denial_status.fit(refusal, "responses", {b"originator": b"codex_cli_rs"}, {})
    [(_, promo)] = fitted.headers
    assert promo == b"G?rtel  set-cookie: x=1  is empty"


@pytest.mark.parametrize(
    "reason", ["insufficient_remaining", "project_cap", "user_cap", "run_cap", "too large"]
)
@pytest.mark.parametrize(
    ("wish", "status"), [({}, 429), ({"x_tollgate_denial_status": "402"}, 402)]
)
def test_every_denial_has_the_chosen_status(world, reason, wish, status) -> None:
    project = world.tollgate.project(credits=0.04 if reason == "insufficient_remaining" else 5)
    if reason == "project_cap":
        world.tollgate.cap(project, f"project:{project.id}", 0)
    elif reason == "user_cap":
        world.tollgate.cap(project, "user:slack:T1:U1", 0)
    elif reason == "run_cap":
        world.tollgate.cap(project, "run", 0)
    token = world.tollgate.token(project, distinct_id="slack:T1:U1")
    body = messages_body(max_tokens=64_000) if reason == "too large" else None
    headers = {name.replace("_", "-"): value for name, value in wish.items()}
    answer = world.post(token, body=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers.get("retry-after") in ({None} if status == 402 else {"60", None})


@pytest.fixture(scope="module")
def chosen() -> Iterator[World]:
    """A gateway whose operator chose the statuses."""
    with world_of(
        GATEWAY_DENIAL_STATUS="messages=402, responses=402",
    ) as world:
        yield world


def test_an_operator_chooses_by_api(chosen: World) -> None:
    project = chosen.tollgate.project(credits=100)
    chosen.tollgate.limit(project)
    for path, status in ((MESSAGES, 402), (CHAT, 429), (RESPONSES, 402)):
        assert_refused(ask(chosen, project, path), path, status)
    answer = ask(chosen, project, MESSAGES, x_tollgate_denial_status="429")
    assert_refused(answer, MESSAGES, 429)


@pytest.mark.parametrize(
    ("written", "chosen"),
    [
        ("", {}),
        ("402", {"anthropic": 402, "chat": 402, "responses": 402}),
        ("429", {"anthropic": 429, "chat": 429, "responses": 429}),
        ("messages=429", {"anthropic": 429}),
        (" chat = 402 ,responses=429", {"chat": 402, "responses": 429}),
    ],
)
def test_the_setting_is_one_status_or_one_by_api(written: str, chosen: dict[Dialect, int]) -> None:
    assert read_denial_status(written) == chosen


@pytest.mark.parametrize(
    "written",
    ["403", "0", "429.0", "messages", "messages=", "=429", "messages=500", "anthropic=429",
     "messages=429,", "messages=429,messages=402", "429,402", "messages=402=429", "no"],
)  # fmt: skip
def test_any_other_setting_is_a_mistake(written: str) -> None:
    with pytest.raises(EnvError):
        read_denial_status(written)

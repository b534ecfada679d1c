"""A body on a billable product must be JSON in UTF-8, as it was counted."""

import json

import pytest

from tests.gateway.bodies import CHAT, RESPONSES
from tests.gateway.conftest import World, messages_body
from tests.gateway.fake_tollgate import FakeProject

BODY = json.dumps(messages_body()).encode()
PATH = "/slack_app/v1/messages"


@pytest.fixture
def project(world: World) -> FakeProject:
    return world.tollgate.project(credits=1000)


def sent(world: World, token: str, body: bytes, *announced: str, path: str = PATH):
    """Post bytes with these content types; return the answer and whether the provider got it."""
    before = len(world.provider.requests)
    headers = [
        ("authorization", f"Bearer {token}"),
        *(("content-type", value) for value in announced),
    ]
    answer = world.http.post(path, headers=headers, content=body)
    return answer, len(world.provider.requests) > before


@pytest.mark.parametrize(
    "announced",
    [
        ("application/json; charset=utf-16",),
        ("application/json; charset=ISO-8859-1",),
        ('application/json;charset="utf-7"',),
        ("application/json; charset*=utf-8''utf-16",),
        ("application/json; charset=utf-8; charset=utf-16",),
        ("application/json; x=y;\tcharset = utf-32",),
        ("application/json", "application/json; charset=utf-16"),
        ("application/json; charset=utf-16", "application/json"),
        ("application/json, text/plain; charset=utf-16",),
        ("application/x-www-form-urlencoded",),
        ("multipart/form-data; boundary=x",),
        ("text/plain; charset=utf-8",),
        ("",),
    ],
)
def test_a_body_announced_in_another_encoding_is_refused(
    world: World, project, announced: tuple[str, ...]
) -> None:
    answer, reached = sent(world, world.tollgate.token(project), BODY, *announced)
    assert (answer.status_code, reached) == (415, False)
    error = answer.json()["error"]
    assert (error["type"], error["reason"]) == ("invalid_request_error", "unsupported_media_type")
    assert world.account(project) == {"spent": 0, "held": 0, "pending": 0}


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_the_refusal_has_the_error_format_of_each_api(world: World, project, path: str) -> None:
    announced = "application/json; charset=utf-16"
    answer, reached = sent(world, world.tollgate.token(project), BODY, announced, path=path)
    assert (answer.status_code, reached) == (415, False)
    assert answer.json()["error"]["reason"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "announced",
    ["application/json", "Application/JSON", "application/json; charset=utf-8",
     "application/json;charset=\"UTF-8\"", "application/json; v=1", None,
     'Application/JSON ; Charset="Utf-8"', "APPLICATION/JSON;CHARSET=UTF8",
     "application/json; charset=unicode-1-1-utf-8", "application/json; charset=csUTF8",
     'application/json; profile="a;charset=utf-16"; charset=utf-8', "application/json;",
     "application/json;; charset=utf-8 ;"],
)  # fmt: skip
def test_json_in_utf_8_passes_however_it_is_written(world: World, project, announced) -> None:
    answer, reached = sent(
        world, world.tollgate.token(project), BODY, *([announced] if announced else [])
    )
    assert (answer.status_code, reached) == (200, True)


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + BODY,
        BODY.decode().encode("utf-16"),
        BODY.decode().encode("utf-16-le"),
        BODY.decode().encode("utf-32-be"),
        json.dumps(messages_body(metadata={"user_id": "\xe9"}), ensure_ascii=False).encode(
            "latin-1"
        ),
    ],
    ids=["a byte order mark", "UTF-16", "UTF-16 without a mark", "UTF-32", "Latin-1"],
)
def test_invalid_utf_8_never_reaches_a_provider(world: World, project, body) -> None:
    answer, reached = sent(world, world.tollgate.token(project), body, "application/json")
    assert (answer.status_code, reached) == (400, False)


def test_unmetered_calls_leave_the_media_type_to_the_provider(world: World, project) -> None:
    token = world.tollgate.token(project, "llm_gateway")
    path = "/llm_gateway/v1/messages"
    answer, reached = sent(world, token, BODY, "application/json; charset=utf-16", path=path)
    assert (answer.status_code, reached) == (200, True)


@pytest.mark.parametrize(
    ("codings", "status"),
    [
        (("identity",), 200), (("Identity",), 200), (("IDENTITY", ""), 200),
        (("identity, identity",), 200), (("",), 200),
        (("gzip",), 415), (("GZIP",), 415), (("identity, gzip",), 415), (("identity", "br"), 415),
        (("x-identity",), 415),
    ],
)  # fmt: skip
def test_content_codings_are_compared_as_the_standard_says(
    world: World, project, codings: tuple[str, ...], status: int
) -> None:
    token = world.tollgate.token(project)
    headers = [("authorization", f"Bearer {token}"), ("content-type", "application/json")]
    headers += [("content-encoding", coding) for coding in codings]
    answer = world.http.post(PATH, headers=headers, content=BODY)
    assert answer.status_code == status

"""Only requests that Slack signed a short time ago are accepted."""

import pytest
from django.db import OperationalError
from slack_sdk.signature import Clock

from slack_bot.models import SlackArrival
from slack_bot.signature import LARGEST_BODY, is_signed
from tests.fakes import SIGNING_SECRET
from tests.slack_bot.conftest import captured

pytestmark = pytest.mark.django_db

# The example of https://docs.slack.dev/authentication/verifying-requests-from-slack/
EXAMPLE_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
EXAMPLE_TIMESTAMP = 1531420618
EXAMPLE_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
    b"%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121"
    b".803a0bc887a14d10d2c447fce8b6703c"
)
EXAMPLE_HEADERS = {
    "X-Slack-Request-Timestamp": str(EXAMPLE_TIMESTAMP),
    "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
}


class Frozen(Clock):
    """A clock that shows some seconds after the example was signed."""

    def __init__(self, after: float = 0) -> None:
        self.at = EXAMPLE_TIMESTAMP + after

    def now(self) -> float:
        return self.at


@pytest.mark.case("S1")
def test_the_example_of_slacks_documentation_verifies():
    assert is_signed(EXAMPLE_BODY, EXAMPLE_HEADERS, [EXAMPLE_SECRET], Frozen())


@pytest.mark.case("S2")
def test_a_body_with_one_byte_appended_does_not_verify():
    assert not is_signed(EXAMPLE_BODY + b"x", EXAMPLE_HEADERS, [EXAMPLE_SECRET], Frozen())


@pytest.mark.case("S3")
@pytest.mark.parametrize(
    ("after", "accepted"), [(299, True), (-299, True), (301, False), (-301, False)]
)
def test_a_signature_is_good_for_five_minutes_either_way(after, accepted):
    signed = is_signed(EXAMPLE_BODY, EXAMPLE_HEADERS, [EXAMPLE_SECRET], Frozen(after))
    assert signed is accepted


def test_two_secrets_are_accepted_during_rotation():
    for secrets in (["new", EXAMPLE_SECRET], [EXAMPLE_SECRET, "new"]):
        assert is_signed(EXAMPLE_BODY, EXAMPLE_HEADERS, secrets, Frozen())


@pytest.mark.parametrize("secrets", [[], [""], [" "], ["another secret"]])
def test_without_the_right_secret_nothing_is_signed(secrets):
    assert not is_signed(EXAMPLE_BODY, EXAMPLE_HEADERS, secrets, Frozen())


# --- At the webhook ------------------------------------------------------------------------------
PATHS = ["events", "interactivity", "commands"]


def post(client, slack, payload=None, path="events", **headers):
    request = slack.signed(f"/slack/{path}/", captured("mention") if payload is None else payload)
    return client.post(
        request.path,
        request.body,
        content_type="application/json",
        headers={name: value for name, value in (request.headers | headers).items() if value},
    )


@pytest.mark.case("S4")
@pytest.mark.parametrize(
    "timestamp", ["abc", "", "1.5", "9" * 5000, "-1", "0", "²", "12e4", "0x5B47", "null"]
)
def test_a_strange_timestamp_is_refused(client, slack, timestamp):
    for path in PATHS:
        answer = post(client, slack, path=path, **{"X-Slack-Request-Timestamp": timestamp})
        assert answer.status_code == 401


@pytest.mark.case("S4")
@pytest.mark.parametrize(
    "signature", ["", "v0=", "v1=" + "a" * 64, "v0=äöü", "a" * 100_000, "v0=" + "0" * 64]
)
def test_a_strange_signature_is_refused(client, slack, signature):
    for path in PATHS:
        answer = post(client, slack, path=path, **{"X-Slack-Signature": signature})
        assert answer.status_code == 401


@pytest.mark.parametrize("path", PATHS)
def test_every_endpoint_refuses_unsigned_requests(client, path):
    response = client.post(f"/slack/{path}/", b"{}", content_type="application/json")
    assert response.status_code == 401


@pytest.mark.case("S6")
@pytest.mark.parametrize("path", PATHS)
def test_without_a_configured_secret_everything_is_refused(client, slack, settings, path):
    settings.SLACK_SIGNING_SECRETS = []
    for secret in (SIGNING_SECRET, "x"):
        request = slack.signed(f"/slack/{path}/", b"{}", secret=secret)
        response = client.post(
            request.path, b"{}", content_type="application/json", headers=request.headers
        )
        assert response.status_code == 401


@pytest.mark.case("S5")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [b"\xff\xfe{}", b'{"text":"\xe4"}', b"payload=\xff", b"\x80"])
def test_a_signed_body_that_is_not_utf8_is_refused_without_an_error(client, slack, body, path):
    assert post(client, slack, body, path).status_code == 401


@pytest.mark.case("S3")
def test_an_old_signature_is_refused(client, slack):
    request = slack.signed("/slack/events/", b"{}", timestamp=EXAMPLE_TIMESTAMP)
    response = client.post(
        request.path, b"{}", content_type="application/json", headers=request.headers
    )
    assert response.status_code == 401


def test_a_body_that_is_too_large_is_not_even_read(client, slack):
    assert post(client, slack, b" " * (LARGEST_BODY + 1)).status_code == 413


def test_an_enormous_content_length_is_too_large_without_an_error(client, slack):
    request = slack.signed("/slack/events/", b"{}")
    headers = request.headers | {"Content-Length": "9" * 5_000}
    response = client.generic("POST", "/slack/events/", b"{}", headers=headers)
    assert response.status_code == 413


@pytest.mark.parametrize("path", PATHS)
def test_only_the_method_post_is_allowed(client, path):
    assert client.get(f"/slack/{path}/").status_code == 405


@pytest.mark.case("S7")
def test_the_challenge_is_answered_when_signed(client, slack):
    payload = captured("url_verification")
    response = post(client, slack, payload)
    assert response.json() == {"challenge": payload["challenge"]}


@pytest.mark.case("S7")
def test_the_challenge_is_not_answered_unsigned(client):
    payload = captured("url_verification")
    response = client.post("/slack/events/", payload, content_type="application/json")
    assert response.status_code == 401


# --- What is noted of requests -------------------------------------------------------------------
def noted() -> set[tuple[str, str]]:
    return set(SlackArrival.objects.values_list("way", "kind"))


def test_a_signed_request_is_noted_at_most_once_a_minute(webhook, django_assert_num_queries):
    assert webhook.deliver({"type": "x"}).status_code == 200
    assert noted() == {("http", "events")}
    with django_assert_num_queries(0):
        webhook.deliver({"type": "x"})
    assert webhook.deliver({"text": "help"}, "/slack/commands/").status_code == 200
    assert noted() == {("http", "events"), ("http", "commands")}


def test_a_wrong_signature_is_noted_as_such(webhook, settings):
    settings.SLACK_SIGNING_SECRETS = ["another app's secret"]
    assert webhook.deliver({"type": "x"}).status_code == 401
    assert noted() == {("wrong", "events")}


def test_a_request_without_a_signature_is_not_noted(client):
    assert client.post("/slack/events/", b"{}", "application/json").status_code == 401
    assert noted() == set()


def test_a_note_that_cannot_be_written_changes_no_answer(webhook, monkeypatch):
    def fail(**_fields):
        raise OperationalError("the database is away")

    monkeypatch.setattr(SlackArrival.objects, "update_or_create", fail)
    assert webhook.deliver({"type": "x"}).status_code == 200

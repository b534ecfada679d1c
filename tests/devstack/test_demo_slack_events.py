"""The demo Slack tells the app what happened: signed, twice for a mention, until acknowledged."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from slack_sdk import WebClient
from slack_sdk.signature import SignatureVerifier

from devstack.demo_slack.app import DemoSlack
from devstack.demo_slack.demo_team import add_demo_team
from devstack.demo_slack.events import sign
from tests.conftest import wait_until
from tests.fakes import BOT_TOKEN, SIGNING_SECRET, FakeSlack


@dataclass
class App:
    """The app that Slack talks to: answers with the next status, 200 when there is none."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    answer: bytes = b""
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def events(self) -> list[dict]:
        return [json.loads(body) for path, _, body in self.received if path == "/slack/events/"]


@pytest.fixture
def app() -> Iterator[App]:
    app = App()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            app.received.append((self.path, headers, body))
            self.send_response(app.statuses.pop(0) if app.statuses else 200)
            self.send_header("Content-Length", str(len(app.answer)))
            self.end_headers()
            self.wfile.write(app.answer)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        app.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield app
        server.shutdown()
        thread.join()


@pytest.fixture
def slack(app: App) -> Iterator[FakeSlack]:
    with FakeSlack(app_url=app.url) as fake:
        yield fake


def test_the_signature_matches_slacks_documentation() -> None:
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow"
        b"&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
        b"&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands"
        b"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    request = sign(SIGNING_SECRET, "/slack/commands/", body, timestamp=1531420618)
    assert request.headers["X-Slack-Signature"] == (
        "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
    )


def test_a_mention_sends_two_events_with_different_ids(slack: FakeSlack, app: App) -> None:
    message = slack.post("<@UBOT> hello", user="U2", channel="C2")
    wait_until(lambda: len(app.received) == 2, what="two deliveries")
    by_type = {envelope["event"]["type"]: envelope for envelope in app.events()}
    assert by_type.keys() == {"app_mention", "message"}
    assert len({envelope["event_id"] for envelope in app.events()}) == 2
    for envelope in app.events():
        assert envelope["type"] == "event_callback"
        assert envelope["team_id"] == "T1"
        assert envelope["authorizations"][0]["team_id"] == "T1"
        event = envelope["event"]
        assert (event["user"], event["channel"], event["ts"]) == ("U2", "C2", message["ts"])
    assert by_type["message"]["event"]["channel_type"] == "channel"


def test_every_delivery_is_signed(slack: FakeSlack, app: App) -> None:
    slack.post("hello")
    wait_until(lambda: app.received, what="a delivery")
    [(_, headers, body)] = app.received
    assert SignatureVerifier(SIGNING_SECRET).is_valid_request(body, headers)
    assert "x-slack-retry-num" not in headers


def test_posts_without_a_mention_and_the_bots_posts_are_plain_messages(
    slack: FakeSlack, app: App
) -> None:
    slack.post("just talking")
    WebClient(BOT_TOKEN, base_url=slack.api_url).chat_postMessage(channel="C1", text="<@UBOT> me")
    wait_until(lambda: len(app.received) == 2, what="two deliveries")
    assert [envelope["event"]["type"] for envelope in app.events()] == ["message", "message"]
    assert any(envelope["event"].get("bot_id") == "B1" for envelope in app.events())


def test_a_failed_delivery_is_repeated_as_the_same_event(slack: FakeSlack, app: App) -> None:
    app.statuses = [500, 503]
    slack.post("hello")
    wait_until(lambda: len(app.received) == 3, what="three deliveries")
    assert len({body for _, _, body in app.received}) == 1
    retries = [headers.get("x-slack-retry-num") for _, headers, _ in app.received]
    assert retries == [None, "1", "2"]
    assert app.received[1][1]["x-slack-retry-reason"] == "http_error"


def test_an_event_is_given_up_after_three_retries(slack: FakeSlack, app: App) -> None:
    app.statuses = [500] * 9
    slack.post("hello")
    wait_until(lambda: slack.slack.events.outbox.next_due() is None, what="giving up")
    assert len(app.received) == 4


def test_an_event_survives_a_restart_of_the_demo_slack(app: App, tmp_path: Path) -> None:
    file = tmp_path / "slack.sqlite3"
    before = DemoSlack("http://127.0.0.1:1", app.url, SIGNING_SECRET, file)
    add_demo_team(before.workspace, before.installations, "Tollgate", BOT_TOKEN)
    message = before.workspace.add_message("C1", {"user": "U1", "text": "<@UBOT> hello"})
    before.events.message_posted("T1", "C1", message)
    before.database.close()

    slack = FakeSlack(app_url=app.url)
    slack.slack.database.close()
    slack.slack = DemoSlack(slack.url, app.url, SIGNING_SECRET, file)
    with slack:
        wait_until(lambda: len(app.received) == 2, what="the deliveries")
        assert slack.messages()[0]["text"] == "<@UBOT> hello"


async def test_a_choice_is_offered_and_made_by_signed_requests(slack: FakeSlack, app: App) -> None:
    select = {"type": "external_select", "action_id": "choose"}
    text = {"type": "mrkdwn", "text": "Which?"}
    block = {"type": "section", "block_id": "b1", "text": text, "accessory": select}
    client = WebClient(BOT_TOKEN, base_url=slack.api_url)
    ts = client.chat_postMessage(channel="C1", text="Which?", blocks=[block])["ts"]
    message = slack.slack.workspace.message("C1", ts)
    option = {"text": {"type": "plain_text", "text": "acme/shop"}, "value": "1"}
    app.answer = json.dumps({"options": [option]}).encode()
    interactions = slack.slack.interactions

    asked = interactions.block_suggestion(message, "C1", "U1", "b1", "choose", "sh")
    assert await interactions.suggestions(asked) == [option]
    action = {"type": "external_select", "block_id": "b1", "action_id": "choose"}
    chosen = interactions.block_actions(message, "C1", "U1", {**action, "selected_option": option})
    await interactions.act(chosen)

    sent = [entry for entry in app.received if entry[0] == "/slack/interactivity/"]
    assert len(sent) == 2
    for _, headers, body in sent:
        assert SignatureVerifier(SIGNING_SECRET).is_valid_request(body, headers)
    assert chosen["actions"][0]["selected_option"] == option
    assert chosen["user"]["id"] == "U1"
    assert chosen["container"]["message_ts"] == ts


async def test_a_response_url_replaces_the_original_until_it_is_used_up(
    slack: FakeSlack, app: App
) -> None:
    client = WebClient(BOT_TOKEN, base_url=slack.api_url)
    ts = client.chat_postMessage(channel="C1", text="Which?")["ts"]
    message = slack.slack.workspace.message("C1", ts)
    action = {"type": "button", "block_id": "b", "action_id": "a", "value": "v"}
    url = slack.slack.interactions.block_actions(message, "C1", "U1", action)["response_url"]
    key = url.rpartition("/")[2]
    assert slack.slack.interactions.respond(key, {"replace_original": True, "text": "Chosen"})
    assert slack.messages()[0]["text"] == "Chosen"
    for _ in range(4):
        assert slack.slack.interactions.respond(key, {"text": "only you see this"})
    assert slack.ephemeral_messages()[0]["visible_to"] == "U1"
    assert not slack.slack.interactions.respond(key, {"text": "a sixth time"})


async def test_a_slash_command_shows_its_answer_to_its_user_only(
    slack: FakeSlack, app: App
) -> None:
    app.answer = b'{"response_type": "ephemeral", "text": "42 credits"}'
    fields = slack.slack.interactions.slash_command("C1", "U1", "/tollgate", "status")
    await slack.slack.interactions.command(fields)
    [(path, headers, body)] = app.received
    assert path == "/slack/commands/"
    assert SignatureVerifier(SIGNING_SECRET).is_valid_request(body, headers)
    [message] = slack.ephemeral_messages()
    assert (message["text"], message["visible_to"]) == ("42 credits", "U1")

"""The demo Slack's page and its verbs over HTTP, as the browser and the tour use them."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from devstack.demo_slack.typing_text import as_stored
from tests.fakes import BOT_TOKEN, FakeSlack
from tests.image_files import png


@pytest.fixture(scope="module")
def _server() -> Iterator[FakeSlack]:
    with FakeSlack() as fake:
        yield fake


@pytest.fixture
def slack(_server: FakeSlack) -> FakeSlack:
    _server.reset()
    return _server


def http(url: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request) as response:
            text = response.read()
            return response.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else text


def state(slack: FakeSlack, user: str = "U1", version: str = "") -> tuple[int, Any]:
    return http(f"{slack.url}/page/state?user={user}&version={version}")


def test_typed_text_is_stored_as_by_slack(slack: FakeSlack) -> None:
    workspace = slack.slack.workspace
    typed = "@Tollgate and @carl: is 1 < 2 & <b>? see https://e.example/a?b=1 in #general @here"
    assert as_stored(typed, workspace.users(), workspace.channels()) == (
        "<@UBOT> and <@U2>: is 1 &lt; 2 &amp; &lt;b&gt;? see <https://e.example/a?b=1>"
        " in <#C1|general> <!here>"
    )


def test_a_person_posts_and_replies(slack: FakeSlack) -> None:
    posted = {"user": "U1", "channel": "C1", "text": "@Tollgate hello"}
    status, answer = http(f"{slack.url}/page/messages", posted)
    assert status == 200
    root = answer["message"]
    http(f"{slack.url}/page/messages", {**posted, "text": "and?", "thread_ts": root["ts"]})
    assert [message["text"] for message in slack.messages("C1", root["ts"])] == [
        "<@UBOT> hello",
        "and?",
    ]


def attached(content: bytes, name: str = "a.png") -> dict:
    return {"name": name, "content": base64.b64encode(content).decode()}


def test_a_person_attaches_files(slack: FakeSlack) -> None:
    posted = {"user": "U1", "channel": "C1", "text": "@Tollgate look"}
    files = [attached(png()), attached(b"<script>alert(1)</script>", "page.html")]
    status, answer = http(f"{slack.url}/page/messages", {**posted, "files": files})
    assert status == 200
    assert answer["message"]["subtype"] == "file_share"
    image, page = slack.messages("C1")[0]["files"]
    assert (image["name"], image["mimetype"]) == ("a.png", "image/png")
    assert (page["name"], page["mimetype"]) == ("page.html", "text/plain")
    headers = {"Authorization": f"Bearer {BOT_TOKEN}"}
    request = urllib.request.Request(image["url_private_download"], headers=headers)
    with urllib.request.urlopen(request) as response:
        assert response.read() == png()


def test_a_file_alone_is_a_message(slack: FakeSlack) -> None:
    posted = {"user": "U1", "channel": "C1", "text": "", "files": [attached(png())]}
    assert http(f"{slack.url}/page/messages", posted)[0] == 200


def test_the_page_shows_images_and_runs_nothing(slack: FakeSlack) -> None:
    posted = {"user": "U1", "channel": "C1", "text": "x"}
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    files = [attached(png()), attached(svg, "a.svg")]
    http(f"{slack.url}/page/messages", {**posted, "files": files})
    for file, kind in zip(
        slack.messages("C1")[0]["files"], ["image/png", "text/plain"], strict=True
    ):
        with urllib.request.urlopen(f"{slack.url}/files/{file['id']}") as response:
            assert response.headers.get_content_type() == kind
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Content-Security-Policy"] == "sandbox"


@pytest.mark.parametrize(
    "files",
    [[attached(png())] * 11, [attached(b"")], [{"name": "a"}], ["x"], [{"content": "not base64!"}]],
)
def test_odd_files_are_refused_with_a_sentence(slack: FakeSlack, files: list) -> None:
    posted = {"user": "U1", "channel": "C1", "text": "hello", "files": files}
    status, answer = http(f"{slack.url}/page/messages", posted)
    assert (status, answer["error"]) == (422, "At most 10 files of 20 MB can be attached.")
    assert slack.messages() == []


@pytest.mark.parametrize(
    "change", [{"user": "U9"}, {"channel": "C9"}, {"text": "  "}, {"text": None}]
)
def test_an_invalid_post_is_refused_with_a_sentence(slack: FakeSlack, change: dict) -> None:
    posted = {"user": "U1", "channel": "C1", "text": "hello", **change}
    status, answer = http(f"{slack.url}/page/messages", posted)
    assert status == 422
    assert answer["error"].endswith(".")
    assert slack.messages() == []


def test_ephemeral_messages_are_shown_to_their_person_only(slack: FakeSlack) -> None:
    client = WebClient(BOT_TOKEN, base_url=slack.api_url)
    message = slack.post("hello")
    client.reactions_add(channel="C1", timestamp=message["ts"], name="eyes")
    client.chat_postEphemeral(channel="C1", user="U1", text="psst")
    _, mine = state(slack, "U1")
    _, theirs = state(slack, "U2")
    assert [message["text"] for message in mine["messages"]["C1"]] == ["hello", "psst"]
    assert [message["text"] for message in theirs["messages"]["C1"]] == ["hello"]
    assert mine["messages"]["C1"][0]["reactions"][0]["name"] == "eyes"
    assert mine["bot"]["id"] == "UBOT"


def test_the_state_is_204_while_nothing_changed(slack: FakeSlack) -> None:
    _, first = state(slack)
    assert state(slack, version=first["version"]) == (204, None)
    slack.post("hello")
    assert state(slack, version=first["version"])[0] == 200
    assert state(slack, user="U2", version=first["version"])[0] == 200


def test_options_of_an_app_that_is_down_are_an_error(slack: FakeSlack) -> None:
    message = slack.post("a message with a control")
    place = {"user": "U1", "channel": "C1", "ts": message["ts"]}
    status, answer = http(f"{slack.url}/page/options", {**place, "value": "x"})
    assert status == 422
    assert "connection_failed" in answer["error"]


def test_nobody_else_can_use_an_ephemeral_control(slack: FakeSlack) -> None:
    client = WebClient(BOT_TOKEN, base_url=slack.api_url)
    ts = client.chat_postEphemeral(channel="C1", user="U1", text="psst")["message_ts"]
    place = {"user": "U2", "channel": "C1", "ts": ts, "action": {}}
    status, answer = http(f"{slack.url}/page/actions", place)
    assert (status, answer["error"]) == (422, "The message is gone.")


def test_the_page_is_one_file_that_loads_nothing_from_elsewhere(slack: FakeSlack) -> None:
    with urllib.request.urlopen(slack.url) as response:
        policy = response.headers["Content-Security-Policy"]
        html = response.read().decode()
    assert "default-src 'none'" in policy
    assert "Demo Slack" in html
    assert "innerHTML" not in html, "texts become text nodes, never HTML"
    assert "src=" not in html
    assert "@import" not in html


@pytest.mark.parametrize(
    "headers", [{"Host": "rebound.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}]
)
def test_other_sites_are_refused(slack: FakeSlack, headers: dict) -> None:
    status, _ = http(f"{slack.url}/_control/posts", {"channel": "C1"}, **headers)
    assert status == 403


def test_the_control_verbs_work_over_http(slack: FakeSlack) -> None:
    control = f"{slack.url}/_control"
    _, message = http(f"{control}/posts", {"channel": "C1", "user": "U1", "text": "hello"})
    _, thread = http(f"{control}/messages?channel=C1&thread_ts={message['ts']}")
    assert [entry["text"] for entry in thread] == ["hello"]

    assert http(f"{control}/faults", {"method": "auth.test", "error": "fatal_error"})[0] == 200
    assert http(f"{control}/faults", {"method": "auth.test", "eror": "x"})[0] == 422
    client = WebClient(BOT_TOKEN, base_url=slack.api_url)
    with pytest.raises(SlackApiError, match="fatal_error"):
        client.auth_test()
    _, calls = http(f"{control}/calls")
    assert [(call["method"], call["answer"]["ok"]) for call in calls] == [("auth.test", False)]


def test_a_direct_message_is_shown_to_its_person_only(slack: FakeSlack) -> None:
    client = WebClient(BOT_TOKEN, base_url=slack.api_url, retry_handlers=[])
    client.chat_postMessage(channel="U1", text="for you")
    _, seen = state(slack, "U1")
    assert [message["text"] for message in seen["messages"]["DU1"]] == ["for you"]
    _, others = state(slack, "U2")
    assert "DU1" not in others["messages"]
    assert all(channel["id"] != "DU1" for channel in others["channels"])


def publish(slack: FakeSlack, user: str = "U1", **view: Any) -> dict[str, Any]:
    """Publish a Home tab with one button."""
    button = {"type": "button", "action_id": "go", "value": "1", "text": PLAIN}
    blocks = [{"type": "section", "text": PLAIN, "accessory": button}]
    client = WebClient(BOT_TOKEN, base_url=slack.api_url)
    home = {"type": "home", "blocks": blocks, **view}
    return client.views_publish(user_id=user, view=home)["view"]


PLAIN = {"type": "plain_text", "text": "Go"}


def test_everybody_sees_their_own_home_tab(slack: FakeSlack) -> None:
    assert state(slack)[1]["home"] is None
    _, before = state(slack)
    view = publish(slack)
    assert state(slack, version=before["version"])[1]["home"] == view
    assert state(slack, "U2")[1]["home"] is None


def test_opening_the_home_tab_tells_the_app() -> None:
    with FakeSlack(app_url="http://127.0.0.1:9") as slack:
        assert http(f"{slack.url}/page/home", {"user": "U1"})[0] == 200
        [pending] = slack.slack.events.outbox.due(float("inf"))
        event = json.loads(pending.body)["event"]
        assert (event["type"], event["tab"], event["user"]) == ("app_home_opened", "home", "U1")
        assert http(f"{slack.url}/page/home", {"user": "UBOT"})[0] == 422


def test_a_click_in_a_home_tab_that_was_never_published_is_refused(slack: FakeSlack) -> None:
    clicked = {"user": "U1", "action": {"type": "button", "action_id": "go", "value": "1"}}
    status, answer = http(f"{slack.url}/page/home/actions", clicked)
    assert (status, answer["error"]) == (422, "The tab is gone.")


@pytest.mark.parametrize(
    "view",
    [
        {"type": "modal"},
        {"blocks": []},
        {"blocks": [{"type": "divider"}] * 101},
        {"blocks": [{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}]},
    ],
    ids=["a modal", "no blocks", "too many blocks", "a wrong block"],
)
def test_a_wrong_home_tab_is_refused_and_noted(slack: FakeSlack, view: dict[str, Any]) -> None:
    with pytest.raises(SlackApiError, match="invalid_arguments"):
        publish(slack, **view)
    assert slack.violations()


def test_a_home_tab_of_a_stranger_is_refused(slack: FakeSlack) -> None:
    slack.install("T2", "xoxb-theirs")
    slack.add_user("U7", team="T2")
    with pytest.raises(SlackApiError, match="user_not_found"):
        publish(slack, "U7")


def test_an_agent_session_is_created_followed_and_renamed(slack: FakeSlack) -> None:
    client = WebClient(BOT_TOKEN, base_url=slack.api_url)
    place = {"channel_id": "C1", "thread_ts": slack.post()["ts"]}
    with pytest.raises(SlackApiError, match="session_not_found"):
        client.agents_sessions_rename(**place, title="x")
    client.agents_sessions_setStatus(**place, status="processing", title="a")
    client.agents_sessions_setStatus(**place, status="active", title="ignored")
    client.agents_sessions_rename(**place, title="b")
    shown = state(slack)[1]["sessions"]["C1"][place["thread_ts"]]
    assert (shown["status"], shown["title"]) == ("active", "b")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"status": "thinking"}, "invalid_arguments"),
        ({"title": "x" * 201}, "invalid_arguments"),
        ({"thread_ts": "1.1"}, "thread_not_found"),
        ({"channel_id": "C404"}, "channel_not_found"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_agent_session_is_refused(slack: FakeSlack, fields: Any, error: str) -> None:
    place = {"channel_id": "C1", "thread_ts": slack.post()["ts"], "status": "processing"}
    client = WebClient(BOT_TOKEN, base_url=slack.api_url)
    with pytest.raises(SlackApiError, match=error):
        client.agents_sessions_setStatus(**place | fields)


def test_slacks_stop_button_tells_the_app() -> None:
    with FakeSlack(app_url="http://127.0.0.1:9") as slack:
        thread = slack.post()["ts"]
        stop = {"user": "U2", "channel": "C1", "thread_ts": thread}
        assert http(f"{slack.url}/page/sessions/stop", stop)[0] == 422
        client = WebClient(BOT_TOKEN, base_url=slack.api_url)
        client.agents_sessions_setStatus(channel_id="C1", thread_ts=thread, status="processing")
        assert http(f"{slack.url}/page/sessions/stop", stop)[0] == 200
        sent = [json.loads(each.body)["event"] for each in slack.slack.events.outbox.due(1e12)]
        [event] = [each for each in sent if each["type"] == "agent_session_stopped"]
        assert (event["thread_ts"], event["user"]) == (thread, "U2")

"""The demo Slack answers a Slack client as Slack does: shapes, errors, and faults on request."""

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from tests.conftest import wait_until
from tests.fakes import BOT_TOKEN, FakeSlack


@pytest.fixture(scope="module")
def _server() -> Iterator[FakeSlack]:
    with FakeSlack() as fake:
        yield fake


@pytest.fixture
def slack(_server: FakeSlack) -> FakeSlack:
    _server.reset()
    return _server


@pytest.fixture
def client(slack: FakeSlack) -> WebClient:
    return WebClient(BOT_TOKEN, base_url=slack.api_url, timeout=5, retry_handlers=[])


def refusal(call, **arguments) -> str:
    with pytest.raises(SlackApiError) as refused:
        call(**arguments)
    assert refused.value.response.status_code == 200
    return refused.value.response["error"]


def test_auth_test_says_whose_token_it_is(client: WebClient) -> None:
    answer = client.auth_test()
    assert (answer["team_id"], answer["user_id"], answer["bot_id"]) == ("T1", "UBOT", "B1")


@pytest.mark.parametrize(("token", "error"), [("xoxb-unknown", "invalid_auth"), ("", "not_authed")])
def test_a_wrong_or_missing_token_is_refused(slack: FakeSlack, token: str, error: str) -> None:
    stranger = WebClient(token, base_url=slack.api_url, retry_handlers=[])
    assert refusal(stranger.chat_postMessage, channel="C1", text="hi") == error
    assert slack.messages() == []


def test_an_uninstalled_app_gets_account_inactive(slack: FakeSlack, client: WebClient) -> None:
    slack.uninstall()
    assert refusal(client.users_info, user="U1") == "account_inactive"


def test_the_token_of_another_team_sees_nothing_of_this_one(slack: FakeSlack) -> None:
    slack.install("T2", "xoxb-of-another-team", bot_user="UBOT2")
    other = WebClient("xoxb-of-another-team", base_url=slack.api_url, retry_handlers=[])
    assert other.auth_test()["team_id"] == "T2"
    assert refusal(other.chat_postMessage, channel="C1", text="hi") == "channel_not_found"
    assert refusal(other.conversations_info, channel="C1") == "channel_not_found"


def test_a_message_is_posted_in_a_thread_with_blocks_and_metadata(
    slack: FakeSlack, client: WebClient
) -> None:
    root = slack.post("a question")
    metadata = {"event_type": "tollgate_notice", "event_payload": {"notice": "1"}}
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "*Answer*"}}]
    answer = client.chat_postMessage(
        channel="C1", text="Answer", blocks=blocks, thread_ts=root["ts"], metadata=metadata
    )
    assert answer["message"]["bot_id"] == "B1"
    [_, message] = slack.messages("C1", root["ts"])
    assert message["ts"] == answer["ts"]
    assert message["thread_ts"] == root["ts"]
    assert message["blocks"] == blocks
    assert message["metadata"] == metadata


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"channel": "C9", "text": "hi"}, "channel_not_found"),
        ({"channel": "C1", "text": ""}, "no_text"),
        ({"channel": "C1", "text": "x" * 40_001}, "msg_too_long"),
        ({"channel": "C1", "text": "x", "blocks": [{}] * 3}, "invalid_blocks"),
        ({"channel": "C1", "text": "x", "blocks": [{"type": "divider"}] * 51}, "invalid_blocks"),
        (
            {"channel": "C1", "text": "x", "metadata": {"event_type": "a"}},
            "invalid_metadata_schema",
        ),
        ({"channel": "CGONE", "text": "hi"}, "is_archived"),
        ({"channel": "COUT", "text": "hi"}, "not_in_channel"),
    ],
)
def test_an_invalid_message_is_refused_as_by_slack(
    slack: FakeSlack, client: WebClient, arguments: dict, error: str
) -> None:
    slack.add_channel("CGONE", is_archived=True)
    slack.add_channel("COUT", is_member=False)
    assert refusal(client.api_call, api_method="chat.postMessage", json=arguments) == error
    assert slack.bot_messages() == []


def test_an_ephemeral_message_is_seen_by_one_person_only(
    slack: FakeSlack, client: WebClient
) -> None:
    client.chat_postEphemeral(channel="C1", user="U1", text="psst")
    assert slack.messages() == []
    [message] = slack.ephemeral_messages()
    assert (message["text"], message["visible_to"]) == ("psst", "U1")
    assert refusal(client.chat_postEphemeral, channel="C1", user="U9", text="x") == (
        "user_not_in_channel"
    )


def test_a_thread_is_read_in_pages_with_metadata_only_when_asked(
    slack: FakeSlack, client: WebClient
) -> None:
    root = slack.post("a question")
    for number in range(4):
        client.chat_postMessage(
            channel="C1",
            text=str(number),
            thread_ts=root["ts"],
            metadata={"event_type": "n", "event_payload": {"n": number}},
        )
    pages = [
        page["messages"]
        for page in client.conversations_replies(channel="C1", ts=root["ts"], limit=2)
    ]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [message["text"] for page in pages for message in page][1:] == ["0", "1", "2", "3"]
    assert pages[0][0]["reply_count"] == 4
    assert not any("metadata" in message for page in pages for message in page)
    whole = client.conversations_replies(channel="C1", ts=root["ts"], include_all_metadata=True)
    assert whole["messages"][4]["metadata"]["event_payload"] == {"n": 3}


def test_a_thread_can_be_read_from_a_reply_or_since_a_time(
    slack: FakeSlack, client: WebClient
) -> None:
    root = slack.post("a question")
    reply = slack.post("a reply", thread_ts=root["ts"])
    by_reply = client.conversations_replies(channel="C1", ts=reply["ts"])
    assert [message["ts"] for message in by_reply["messages"]] == [root["ts"], reply["ts"]]
    later = client.conversations_replies(channel="C1", ts=root["ts"], oldest=root["ts"])
    assert [message["ts"] for message in later["messages"]] == [reply["ts"]]
    assert refusal(client.conversations_replies, channel="C1", ts="1.0") == "thread_not_found"


def test_the_bot_changes_its_own_messages_only(slack: FakeSlack, client: WebClient) -> None:
    theirs = slack.post("a question")
    mine = client.chat_postMessage(channel="C1", text="working …")
    client.chat_update(channel="C1", ts=mine["ts"], text="done")
    assert slack.messages()[-1]["text"] == "done"
    assert "edited" in slack.messages()[-1]
    assert refusal(client.chat_update, channel="C1", ts=theirs["ts"], text="x") == (
        "cant_update_message"
    )
    assert refusal(client.chat_update, channel="C1", ts="1.0", text="x") == "message_not_found"


def test_reactions_are_added_and_removed_once(slack: FakeSlack, client: WebClient) -> None:
    message = slack.post("a question")
    reaction = {"channel": "C1", "timestamp": message["ts"], "name": "eyes"}
    client.reactions_add(**reaction)
    assert slack.reactions("C1", message["ts"]) == ["eyes"]
    assert refusal(client.reactions_add, **reaction) == "already_reacted"
    client.reactions_remove(**reaction)
    assert slack.reactions("C1", message["ts"]) == []
    assert refusal(client.reactions_remove, **reaction) == "no_reaction"
    assert refusal(client.reactions_add, **{**reaction, "timestamp": "1.0"}) == (
        "message_not_found"
    )


def test_people_channels_and_the_team_can_be_read(slack: FakeSlack, client: WebClient) -> None:
    slack.add_user("U7", "Nora New", email="nora@acme.example", is_ultra_restricted=True)
    user = client.users_info(user="U7")["user"]
    assert user["profile"]["email"] == "nora@acme.example"
    assert user["is_ultra_restricted"]
    assert client.users_info(user="U3")["user"]["is_restricted"]
    assert client.conversations_info(channel="C1")["channel"]["name"] == "general"
    names = [channel["name"] for channel in client.users_conversations()["channels"]]
    assert names == ["general", "engineering"]
    assert client.team_info()["team"]["id"] == "T1"
    assert refusal(client.users_info, user="U404") == "user_not_found"


def test_a_permalink_names_channel_message_and_thread(slack: FakeSlack, client: WebClient) -> None:
    root = slack.post("a question", ts="1700000000.000100")
    link = client.chat_getPermalink(channel="C1", message_ts=root["ts"])["permalink"]
    assert link == f"{slack.url}/archives/C1/p1700000000000100"


def test_the_app_is_installed_by_a_code_that_works_once(slack: FakeSlack) -> None:
    client = WebClient(base_url=slack.api_url, retry_handlers=[])
    code = slack.new_code()
    exchange = {"client_id": "1.2", "client_secret": "s", "code": code}
    answer = client.oauth_v2_access(**exchange)
    assert answer["access_token"] == BOT_TOKEN
    assert answer["team"] == {"id": "T1", "name": "Acme"}
    assert answer["bot_user_id"] == "UBOT"
    assert refusal(client.oauth_v2_access, **exchange) == "invalid_code"


def test_a_form_and_a_json_body_are_equivalent(slack: FakeSlack) -> None:
    message = {"channel": "C1", "text": "hi", "blocks": [{"type": "divider"}]}
    form = urlencode({**message, "blocks": json.dumps(message["blocks"]), "token": BOT_TOKEN})
    as_json = {"Content-Type": "application/json", "Authorization": f"Bearer {BOT_TOKEN}"}
    as_form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body, headers in ((json.dumps(message), as_json), (form, as_form)):
        request = urllib.request.Request(f"{slack.api_url}chat.postMessage", body.encode(), headers)
        with urllib.request.urlopen(request) as response:
            assert json.load(response)["ok"]
    assert [posted["blocks"] for posted in slack.messages()] == [[{"type": "divider"}]] * 2


def test_an_unknown_method_is_refused(client: WebClient) -> None:
    assert refusal(client.api_call, api_method="chat.shout") == "unknown_method"


def test_a_rate_limited_call_gets_429_and_has_no_effect(
    slack: FakeSlack, client: WebClient
) -> None:
    slack.fail_next("chat.postMessage", "ratelimited", retry_after=7)
    with pytest.raises(SlackApiError) as refused:
        client.chat_postMessage(channel="C1", text="hi")
    assert refused.value.response.status_code == 429
    assert refused.value.response.headers["Retry-After"] == "7"
    assert refused.value.response["error"] == "ratelimited"
    assert slack.messages() == []
    assert client.chat_postMessage(channel="C1", text="hi")["ok"]
    assert [call.answer["ok"] for call in slack.calls("chat.postMessage")] == [False, True]


def test_a_fault_can_apply_to_any_method_several_times(slack: FakeSlack, client: WebClient) -> None:
    slack.fail_next("*", "internal_error", times=2)
    assert refusal(client.auth_test) == "internal_error"
    assert refusal(client.users_info, user="U1") == "internal_error"
    assert client.auth_test()["ok"]


def test_a_hanging_call_takes_effect_late(slack: FakeSlack) -> None:
    slack.hang_next("chat.postMessage", 5)
    impatient = WebClient(BOT_TOKEN, base_url=slack.api_url, timeout=1, retry_handlers=[])
    with pytest.raises(TimeoutError):
        impatient.chat_postMessage(channel="C1", text="hi")
    assert slack.messages() == []


def test_a_call_that_hangs_during_a_reset_has_no_effect(
    slack: FakeSlack, client: WebClient
) -> None:
    slack.hang_next("chat.postMessage", 2)
    with ThreadPoolExecutor(1) as background:
        post = background.submit(client.chat_postMessage, channel="C1", text="hi")
        wait_until(lambda: not slack.slack.faults)
        slack.reset()
        with pytest.raises(ConnectionError):
            post.result()
    assert slack.messages() == []
    assert slack.calls() == []


def test_a_call_with_a_dropped_answer_takes_effect(slack: FakeSlack, client: WebClient) -> None:
    slack.drop_answer_next("chat.postMessage")
    with pytest.raises(ConnectionError):
        client.chat_postMessage(channel="C1", text="hi")
    assert [message["text"] for message in slack.messages()] == ["hi"]


def test_a_file_is_uploaded_and_shared_in_a_thread(slack: FakeSlack, client: WebClient) -> None:
    root = slack.post("a question")
    client.files_upload_v2(
        filename="answer.md",
        content="# Ünïcode",
        channel="C1",
        thread_ts=root["ts"],
        initial_comment="Here it is.",
    )
    [_, shared] = client.conversations_replies(channel="C1", ts=root["ts"])["messages"]
    assert (shared["text"], shared["files"][0]["name"]) == ("Here it is.", "answer.md")
    assert slack.file(shared) == "# Ünïcode"


def test_a_file_is_refused_without_its_bytes_or_in_a_closed_channel(
    slack: FakeSlack, client: WebClient
) -> None:
    ticket = client.files_getUploadURLExternal(filename="a", length=3)
    files = [{"id": ticket["file_id"], "title": "a"}]
    assert refusal(client.files_completeUploadExternal, files=files) == "file_not_found"
    assert refusal(client.files_getUploadURLExternal, filename="a", length=0) == "missing_argument"
    slack.add_channel("C3", is_archived=True)
    upload = {"filename": "a", "content": "abc", "channel": "C3"}
    assert refusal(client.files_upload_v2, **upload) == "posting_to_channel_denied"


def test_a_direct_message_goes_to_a_conversation_or_a_user_id(
    slack: FakeSlack, client: WebClient
) -> None:
    channel = client.conversations_open(users="U1")["channel"]["id"]
    client.chat_postMessage(channel=channel, text="one")
    client.chat_postMessage(channel="U1", text="two")
    said = client.conversations_history(channel=channel)["messages"]
    assert [message["text"] for message in said] == ["two", "one"]
    assert refusal(client.conversations_history, channel="U1") == "channel_not_found"
    assert refusal(client.conversations_open, users="U404") == "user_not_found"
    assert slack.direct_messages("U2") == []


def test_limits_can_be_changed(slack: FakeSlack, client: WebClient) -> None:
    control = f"{slack.url}/_control/limits"
    request = urllib.request.Request(control, json.dumps({"text": 10}).encode(), method="POST")
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["text"] == 10
    assert refusal(client.chat_postMessage, channel="C1", text="x" * 11) == "msg_too_long"
    client.chat_postMessage(channel="C1", text="x" * 10)


@pytest.mark.parametrize(
    ("lengths", "error"), [([3001], "invalid_blocks"), ([2700] * 5, "msg_blocks_too_long")]
)
def test_blocks_have_separate_limits(client: WebClient, lengths: list[int], error: str) -> None:
    blocks = [
        {"type": "section", "text": {"type": "mrkdwn", "text": "x" * length}} for length in lengths
    ]
    assert refusal(client.chat_postMessage, channel="C1", text="x", blocks=blocks) == error

"""Reading payloads: a person's post, the end of an installation, or nothing of interest."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slack_bot import events, payloads
from slack_bot.events import Installation, Post, Uninstalled
from tests.examples import examples
from tests.slack_bot.conftest import captured


def test_a_mention_is_read():
    assert events.read(captured("mention")) == Post(
        installation=Installation("T1", "", is_org_wide=False),
        event_id="Ev0000000A1",
        channel_id="C1",
        ts="100.1",
        thread_ts="100.1",
        user_id="U1",
        author_team="",
        text="<@UBOT> why does the build fail?",
        is_app_mention=True,
        tagged=frozenset({"UBOT"}),
        bot_user_id="UBOT",
    )


def test_the_message_event_of_a_mention_is_the_same_post():
    mention = events.read(captured("mention"))
    twin = events.read(captured("message_twin_of_the_mention"))
    assert (twin.channel_id, twin.ts) == (mention.channel_id, mention.ts)
    assert not twin.is_app_mention
    assert twin.tagged == mention.tagged


@pytest.mark.parametrize(
    ("case", "is_reply"),
    [
        ("mention", False),
        ("mention_in_a_thread", True),
        ("reply_in_a_thread", True),
        ("file_shared_in_a_thread", True),
        ("thread_reply_also_sent_to_the_channel", True),
    ],
)
def test_replies_are_distinguished_from_posts_at_top_level(case, is_reply):
    assert events.read(captured(case)).is_reply is is_reply


@pytest.mark.parametrize(
    "case",
    [
        "message_by_an_app",
        "mention_by_an_app",
        "message_by_an_incoming_webhook",
        "message_by_slackbot",
        "message_by_ourselves",
        "mention_fired_by_an_edit",
        "channel_joined",
        "reaction_added",
        "member_joined_channel",
        "tokens_of_a_user_revoked",
        "url_verification",
        "app_rate_limited",
    ],
)
def test_posts_not_written_by_people_are_ignored(case):
    assert events.read(captured(case)) is None


@pytest.mark.case("S22")
@pytest.mark.parametrize(
    "mark", [{"bot_id": "B9"}, {"bot_profile": {"id": "B9"}}, {"app_id": "A9"}]
)
def test_any_single_bot_field_means_a_bot(mark):
    assert events.read(captured("mention", **mark)) is None


@pytest.mark.parametrize("mark", ["bot_id", "bot_profile", "app_id"])
def test_an_empty_bot_field_does_not_mean_a_bot(mark):
    assert events.read(captured("mention", **{mark: None})) is not None


@pytest.mark.parametrize("text", ["<@UBOT> hi", "hi <@UBOT|tollgate>", "<@U2>: ask <@UBOT>"])
def test_the_bot_is_found_in_the_text_of_a_message(text):
    assert "UBOT" in events.read(captured("message_twin_of_the_mention", text=text)).tagged


@pytest.mark.case("S27")
def test_a_shared_channel_names_the_installation_in_the_first_authorization():
    post = events.read(captured("mention_in_a_shared_channel"))
    assert post.installation.team_id == "T1"


def test_an_org_wide_installation_has_no_team():
    post = events.read(captured("mention_under_an_org_wide_installation"))
    assert post.installation == Installation("", "E1", is_org_wide=True)


@pytest.mark.parametrize("case", ["app_uninstalled", "tokens_revoked"])
def test_the_end_of_an_installation_is_read(case):
    assert events.read(captured(case)) == Uninstalled(
        Installation("T1", "", is_org_wide=False), datetime(2026, 11, 23, 8, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    "body",
    [b"{bad", b"[]", b"null", b"", b"1", b'"text"', b"NaN", b'{"event":', b"\xff", b"1" * 5000],
)
def test_anything_but_a_json_object_reads_as_an_empty_one(body):
    assert payloads.parse(body) == {}


def test_deeply_nested_json_raises_no_error():
    assert payloads.parse(b'{"a":' * 100_000) == {}
    assert payloads.parse(b"[" * 100_000 + b"]" * 100_000) == {}


@pytest.mark.parametrize("event", [None, [], "app_mention", 7, {}, {"type": ["app_mention"]}])
def test_an_event_of_the_wrong_type_is_ignored(event):
    assert events.read({"type": "event_callback", "event": event}) is None


@pytest.mark.parametrize(
    "field",
    [
        {"channel": "C1\0"},
        {"channel": "C" * 33},
        {"channel": None},
        {"channel": {"id": "C1"}},
        {"user": ""},
        {"user": ["U1"]},
        {"ts": "100"},
        {"ts": 100.1},
        {"ts": "١٠٠.١"},
        {"ts": "9" * 40 + ".1"},
        {"thread_ts": "yesterday"},
    ],
)
def test_a_post_without_a_valid_place_is_ignored(field):
    assert events.read(captured("mention", **field)) is None


def test_text_is_kept_in_a_form_that_every_database_stores():
    text = events.read(captured("mention", text="a\0b\ud800c<@UBOT>")).text
    assert text == "ab?c<@UBOT>"
    assert events.read(captured("mention", text=["a"])).text == ""


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["T1", "C1", "U1", "100.1", "<@UBOT>", "app_mention", "event_callback"]),
    lambda values: (
        st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=8), values, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=examples(75), deadline=None)
@given(st.data())
def test_payloads_with_any_part_replaced_are_read_without_an_error(data):
    case = data.draw(st.sampled_from(["mention", "reply_in_a_thread", "tokens_revoked"]))
    payload = captured(case)
    for part in (payload, payload["event"], payload["authorizations"][0]):
        for name in data.draw(st.sets(st.sampled_from(sorted(part)), max_size=3)):
            part[name] = data.draw(json_values)
    read = events.read(payloads.parse(json.dumps(payload)))
    if isinstance(read, Post):
        assert all(isinstance(value, str) for value in (read.text, read.user_id, read.ts))
        assert "\0" not in read.text
        read.text.encode()


def test_an_edit_names_the_message_and_its_new_text():
    edited = events.read(captured("message_edited"))
    assert (edited.channel_id, edited.ts) == ("C1", "100.1")
    assert edited.text == "<@UBOT> why does the build really fail?"


TOMBSTONE = {"type": "message", "subtype": "tombstone", "user": "USLACKBOT", "ts": "100.1"}


@pytest.mark.parametrize(
    "payload",
    [captured("message_deleted"), captured("message_edited", message=TOMBSTONE)],
    ids=["gone", "with replies"],
)
def test_a_deletion_names_the_message(payload):
    deleted = events.read(payload)
    assert isinstance(deleted, events.Deleted)
    assert (deleted.channel_id, deleted.ts) == ("C1", "100.1")


def test_edits_by_bots_are_ignored():
    ours = {"type": "message", "user": "UBOT", "bot_id": "B1", "ts": "100.1", "text": "x"}
    assert events.read(captured("message_edited", message=ours)) is None

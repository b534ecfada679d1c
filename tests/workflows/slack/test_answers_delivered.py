"""Answers that were paid for reach somebody, whatever Slack refuses."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from tests.conftest import wait_until
from tests.workflows.test_notices import deliver, deliver_again
from tests.workflows.test_notices import mention as mention
from tests.workflows.test_notices import slack as slack
from tests.workflows.test_notices import workspace as workspace
from workflows import notices, wording
from workflows.models import Notice
from workflows.slack import client
from workflows.slack.block_kit import section

# Errors of https://docs.slack.dev/reference/methods/chat.postMessage/#errors, by what cures them:
# another place,
REFUSED_HERE = [
    "access_denied",
    "app_access_restricted",
    "cannot_reply_to_message",
    "channel_not_found",
    "ekm_access_denied",
    "is_archived",
    "is_inactive",
    "message_not_found",
    "messages_tab_disabled",
    "no_permission",
    "not_in_channel",
    "restricted_action",
    "restricted_action_non_threadable_channel",
    "restricted_action_read_only_channel",
    "restricted_action_thread_locked",
    "restricted_action_thread_only_channel",
    "team_access_not_granted",
    "team_not_found",
    "thread_locked",
    "thread_not_found",
]
# another text or a file,
REFUSED = [
    "as_user_not_supported",
    "attachment_payload_limit_exceeded",
    "draft_already_deleted",
    "draft_already_sent",
    "draft_has_conflict",
    "draft_not_found",
    "duplicate_channel_not_found",
    "duplicate_message_not_found",
    "invalid_arg_name",
    "invalid_arguments",
    "invalid_array_arg",
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_charset",
    "invalid_form_data",
    "invalid_metadata_format",
    "invalid_metadata_schema",
    "invalid_post_type",
    "markdown_text_conflict",
    "metadata_must_be_sent_from_app",
    "metadata_too_large",
    "missing_file_data",
    "missing_post_type",
    "missing_scope",
    "msg_blocks_too_long",
    "msg_too_long",
    "no_text",
    "send_on_behalf_not_allowed",
    "slack_connect_canvas_sharing_blocked",
    "slack_connect_file_link_sharing_blocked",
    "slack_connect_lists_sharing_blocked",
    "too_many_attachments",
    "too_many_contact_cards",
    "deprecated_endpoint",
    "enterprise_is_restricted",
    "method_deprecated",
    "not_allowed_token_type",
    "two_factor_setup_required",
    "invalid_json",
    "json_not_object",
    "unknown_method",
    "an_error_that_slack_thought_of_yesterday",
]
# time,
LATER = [
    "accesslimited",
    "external_channel_migrating",
    "message_limit_exceeded",
    "org_login_required",
    "rate_limited",
    "ratelimited",
    "request_timeout",
    "service_unavailable",
    "team_added_to_org",
    "token_expired",
]
# a search for the message, which may have been posted,
UNKNOWN = ["fatal_error", "internal_error", "update_failed"]
# and nothing.
DISCONNECTED = [
    "account_inactive",
    "invalid_auth",
    "not_authed",
    "token_revoked",
]

DOCUMENT = Path(__file__).parents[3] / "docs" / "slack.md"

SHORT = "The answer is 42 &amp; nothing else."
LONG = "\n\n".join(f"Paragraph {number}. " + "word " * 100 for number in range(20))
VERY_LONG = "\n\n".join(f"Paragraph {number}. " + "word " * 100 for number in range(100))


@pytest.fixture
def answer(mention) -> Notice:
    return notices.claim("answer:1", Notice.Kind.ANSWER, mention, SHORT)


@pytest.fixture
def long_answer(mention) -> Notice:
    return notices.claim("answer:2", Notice.Kind.ANSWER, mention, LONG)


def texts(messages) -> list[str]:
    return [message["text"] for message in messages]


def refuse_everything(slack, error: str) -> None:
    for method in ("chat.postMessage", "chat.postEphemeral", "files.getUploadURLExternal"):
        slack.fail_next(method, error, times=20)


@pytest.mark.case("U2")
def test_the_document_lists_what_is_tried_here():
    table = DOCUMENT.read_text().partition("## What Slack refuses")[2].partition("\n## ")[0]
    listed = {}
    for row in re.findall(r"^\| (?!cured|-)(.*?) \| (.*?) \|", table, re.MULTILINE):
        listed[row[0]] = set(re.findall(r"`([a-z_]+)`", row[1]))
    made_up = {"an_error_that_slack_thought_of_yesterday"}
    by_text = listed["another text, or a file"] | listed["a permission, another app"]
    assert by_text == set(REFUSED) - made_up
    assert listed["another place"] == set(REFUSED_HERE)
    assert listed["time"] == set(LATER)
    assert listed["unknown"] == set(UNKNOWN)
    assert listed["nothing"] == set(DISCONNECTED)


class TestErrors:
    """Every documented error of `chat.postMessage`."""

    @pytest.mark.case("U2")
    @pytest.mark.parametrize("error", REFUSED_HERE)
    def test_answers_that_the_thread_refuses_go_to_a_direct_message(self, slack, answer, error):
        slack.fail_next("chat.postMessage", error)
        deliver(answer)
        assert (answer.state, answer.destination, answer.error) == ("sent", "dm", error)
        assert texts(slack.direct_messages("U1")) == [SHORT]
        assert slack.calls("files.getUploadURLExternal") == []

    @pytest.mark.case("U2")
    @pytest.mark.parametrize("error", REFUSED)
    def test_answers_refused_as_text_become_a_file(self, slack, mention, answer, error):
        slack.fail_next("chat.postMessage", error)
        deliver(answer)
        assert (answer.state, answer.destination, answer.error) == ("sent", "file", error)
        [posted] = slack.bot_messages("C1", mention.ts)
        assert slack.file(posted) == "The answer is 42 & nothing else."
        assert answer.message_ts == posted["ts"]
        assert len(slack.calls("chat.postMessage")) == 1

    @pytest.mark.case("U2")
    @pytest.mark.parametrize("error", REFUSED)
    def test_answers_refused_as_one_message_become_several(
        self, slack, mention, long_answer, error
    ):
        slack.fail_next("chat.postMessage", error)
        deliver(long_answer)
        assert (long_answer.state, long_answer.destination) == ("sent", "parts")
        posted = slack.bot_messages("C1", mention.ts)
        assert len(posted) > 2
        assert "".join(texts(posted)).split() == LONG.split()
        assert long_answer.message_ts == posted[0]["ts"]

    @pytest.mark.case("U2")
    @pytest.mark.parametrize("error", LATER)
    def test_temporary_failures_are_posted_later(self, slack, mention, answer, error):
        slack.fail_next("chat.postMessage", error)
        assert deliver(answer).state == "pending"
        deliver_again(answer)
        assert (answer.state, answer.destination) == ("sent", "thread")
        assert texts(slack.bot_messages("C1", mention.ts)) == [SHORT]

    @pytest.mark.case("U2")
    @pytest.mark.parametrize("error", UNKNOWN)
    def test_messages_with_unknown_outcome_are_searched_for(self, slack, mention, answer, error):
        slack.fail_next("chat.postMessage", error)
        assert deliver(answer).state == "sending"
        deliver_again(answer)
        assert (answer.state, answer.destination) == ("sent", "thread")
        assert len(slack.calls("conversations.replies")) == 1

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_an_http_failure_is_not_a_refusal(self, slack, answer, status):
        slack.fail_next("chat.postMessage", "msg_too_long", status=status)
        assert deliver(answer).state == ("pending" if status == 429 else "sending")
        assert answer.destination == "thread"

    @pytest.mark.case("U2")
    @pytest.mark.parametrize("error", DISCONNECTED)
    def test_without_a_connection_it_is_kept_for_the_page(self, slack, answer, error):
        slack.fail_next("chat.postMessage", error)
        deliver(answer)
        assert (answer.state, answer.destination) == ("given_up", "page")
        assert (answer.error, answer.text) == (error, SHORT)
        assert len(slack.calls()) == 1


class TestCommonErrors:
    """The second table of docs/slack.md, row by row."""

    @pytest.fixture
    def impatient(self, monkeypatch) -> None:
        """Calls are given up after a third of a second."""
        monkeypatch.setattr(
            notices, "client_for", lambda each: client.client_for(each, timeout=0.3)
        )

    @pytest.mark.case("U2")
    @pytest.mark.parametrize(
        ("error", "destination"),
        [
            ("ratelimited", "thread"),
            ("msg_too_long", "file"),
            ("invalid_blocks", "thread"),
            ("is_archived", "dm"),
            ("not_in_channel", "dm"),
            ("channel_not_found", "dm"),
            ("cannot_reply_to_message", "dm"),
            ("token_revoked", "page"),
            ("fatal_error", "thread"),
            ("silence", "thread"),
            ("a closed connection", "thread"),
        ],
    )
    def test_a_paid_answer_reaches_somebody_once_or_is_kept(
        self, slack, mention, impatient, error, destination
    ):
        answer = notices.claim(
            "answer:1", Notice.Kind.ANSWER, mention, SHORT, blocks=[section(SHORT)]
        )
        if error == "silence":
            slack.hang_next("chat.postMessage", 0.6)
        elif error == "a closed connection":
            slack.drop_answer_next("chat.postMessage")
        else:
            slack.fail_next("chat.postMessage", error)
        deliver(answer)
        wait_until(lambda: slack.calls("chat.postMessage"), what="the end of the call")
        for _ in range(2):
            deliver_again(answer)
        assert answer.destination == destination
        assert answer.state == ("given_up" if destination == "page" else "sent")
        posted = [*slack.bot_messages("C1", mention.ts), *slack.direct_messages("U1")]
        assert len(posted) == (destination != "page")


class TestWays:
    def test_a_text_that_is_taken_is_posted_as_it_is(self, slack, mention, long_answer):
        deliver(long_answer)
        assert texts(slack.bot_messages("C1", mention.ts)) == [LONG]

    @pytest.mark.parametrize("limit", [3000, 3500, 4000])
    def test_a_text_is_divided_for_a_slack_that_takes_less(
        self, slack, mention, long_answer, limit
    ):
        slack.take_at_most(limit)
        deliver(long_answer)
        assert (long_answer.state, long_answer.destination) == ("sent", "parts")
        assert "".join(texts(slack.bot_messages("C1", mention.ts))).split() == LONG.split()

    def test_a_slack_that_takes_hardly_anything_gets_a_file(self, slack, mention, long_answer):
        slack.take_at_most(500)
        deliver(long_answer)
        assert long_answer.destination == "file"
        [posted] = slack.bot_messages("C1", mention.ts)
        assert slack.file(posted) == LONG

    def test_a_very_long_text_is_a_file_from_the_first(self, slack, mention):
        notice = notices.claim("answer:3", Notice.Kind.ANSWER, mention, VERY_LONG)
        deliver(notice)
        assert (notice.state, notice.destination) == ("sent", "file")
        [posted] = slack.bot_messages("C1", mention.ts)
        assert slack.file(posted) == VERY_LONG
        assert slack.calls("chat.postMessage") == []

    @pytest.mark.parametrize("error", ["missing_scope", "file_uploads_disabled", "unknown_method"])
    def test_a_very_long_text_without_files_becomes_several(self, slack, mention, error):
        slack.fail_next("files.getUploadURLExternal", error)
        notice = notices.claim("answer:3", Notice.Kind.ANSWER, mention, VERY_LONG)
        deliver(notice)
        assert (notice.state, notice.destination) == ("sent", "parts")
        assert "".join(texts(slack.bot_messages("C1", mention.ts))).split() == VERY_LONG.split()

    @pytest.mark.parametrize(
        "error",
        [
            "missing_scope",
            "file_uploads_disabled",
            "file_type_not_allowed",
            "file_uploads_except_images_disabled",
            "file_upload_size_restricted",
            "snippet_too_large",
            "storage_limit_reached",
            "missing_argument",
        ],
    )
    def test_a_file_that_is_refused_becomes_a_direct_message(self, slack, answer, error):
        slack.fail_next("chat.postMessage", "msg_too_long")
        slack.fail_next("files.getUploadURLExternal", error)
        deliver(answer)
        assert (answer.state, answer.destination, answer.error) == ("sent", "dm", error)
        assert texts(slack.direct_messages()) == [SHORT]

    @pytest.mark.parametrize("status", [403, 500])
    def test_a_file_whose_bytes_are_not_taken_becomes_a_direct_message(self, slack, answer, status):
        slack.fail_next("chat.postMessage", "msg_too_long")
        slack.fail_next("upload", "no", status=status)
        deliver(answer)
        assert (answer.state, answer.destination, answer.error) == ("sent", "dm", "upload_failed")

    @pytest.mark.parametrize(
        "error", ["posting_to_channel_denied", "invalid_channel", "channel_not_found"]
    )
    def test_a_file_that_the_thread_refuses_becomes_a_direct_message(self, slack, answer, error):
        slack.fail_next("chat.postMessage", "msg_too_long")
        slack.fail_next("files.completeUploadExternal", error)
        deliver(answer)
        assert (answer.state, answer.destination) == ("sent", "dm")

    def test_a_long_text_is_divided_in_direct_messages_too(self, slack, long_answer):
        slack.take_at_most(3000)
        slack.add_channel("C1", is_archived=True)
        deliver(long_answer)
        assert (long_answer.state, long_answer.destination) == ("sent", "dm_parts")
        assert "".join(texts(slack.direct_messages())).split() == LONG.split()

    def test_a_direct_message_too_may_be_a_file(self, slack, long_answer):
        slack.take_at_most(500)
        slack.add_channel("C1", is_archived=True)
        deliver(long_answer)
        assert (long_answer.state, long_answer.destination) == ("sent", "dm_file")
        assert slack.file(slack.direct_messages()[0]) == LONG

    @pytest.mark.parametrize("error", ["missing_scope", "unknown_method"])
    def test_an_installation_that_may_open_no_conversation_writes_to_the_person(
        self, slack, answer, error
    ):
        slack.fail_next("chat.postMessage", "is_archived")
        slack.fail_next("conversations.open", error)
        deliver(answer)
        assert (answer.state, answer.destination) == ("sent", "dm")
        assert texts(slack.direct_messages()) == [SHORT]

    @pytest.mark.case("U4")
    @pytest.mark.parametrize("error", ["user_disabled", "user_not_found", "user_not_visible"])
    def test_an_answer_stays_on_the_page_if_nobody_can_be_written_to(
        self, slack, mention, answer, error
    ):
        slack.fail_next("chat.postMessage", "is_archived")
        slack.fail_next("conversations.open", error)
        deliver(answer)
        assert (answer.state, answer.destination, answer.error) == ("sent", "page", error)
        [posted] = slack.bot_messages("C1", mention.ts)
        page = f"{settings.PUBLIC_URL}/admin/threads/{answer.workspace_id}/C1/{mention.ts}/"
        assert page in posted["text"]
        assert "The answer" not in posted["text"]

    @pytest.mark.case("U2")
    def test_the_thread_is_told_of_the_page_if_every_form_is_refused(self, slack, mention, answer):
        slack.fail_next("chat.postMessage", "msg_too_long", times=2)
        slack.fail_next("files.getUploadURLExternal", "missing_scope", times=2)
        deliver(answer)
        assert (answer.state, answer.destination) == ("sent", "page")
        [said] = texts(slack.bot_messages("C1", mention.ts))
        assert "an administrator can read it at" in said

    def test_the_user_alone_is_told_of_the_page_if_the_thread_is_closed(self, slack, answer):
        slack.fail_next("chat.postMessage", "restricted_action", times=3)
        deliver(answer)
        assert (answer.state, answer.destination) == ("sent", "page")
        [shown] = slack.ephemeral_messages("C1")
        assert "an administrator can read it at" in shown["text"]
        assert shown["visible_to"] == "U1"

    @pytest.mark.parametrize("error", [*REFUSED_HERE, *REFUSED])
    def test_answers_refused_everywhere_are_kept(self, slack, answer, error):
        refuse_everything(slack, error)
        deliver(answer)
        assert (answer.state, answer.destination) == ("given_up", "page")
        assert (answer.text, answer.error) == (SHORT, error)
        assert len(slack.calls()) < 12
        deliver_again(answer)
        assert len(slack.calls()) < 12

    def test_after_six_hours_of_failures_it_is_kept(self, slack, answer):
        since = timezone.now() - timedelta(hours=6, seconds=1)
        Notice.objects.update(created_at=since, attempts=70)
        slack.fail_next("chat.postMessage", "service_unavailable")
        deliver(answer)
        assert (answer.state, answer.destination) == ("given_up", "page")


class TestOnce:
    def test_a_part_with_unknown_outcome_is_searched_for_and_the_rest_follows(
        self, slack, mention, long_answer
    ):
        slack.take_at_most(4000)
        slack.fail_next("chat.postMessage", "msg_too_long")
        slack.drop_answer_next("chat.postMessage", times=5)
        for _ in range(6):
            deliver_again(long_answer)
        assert (long_answer.state, long_answer.destination) == ("sent", "parts")
        assert "".join(texts(slack.bot_messages("C1", mention.ts))).split() == LONG.split()

    def test_a_rate_limit_between_two_parts_is_waited_out(self, slack, mention, long_answer):
        slack.take_at_most(4000)
        for _ in range(3):
            slack.fail_next("chat.postMessage", "ratelimited", retry_after=1)
            deliver_again(long_answer)
            assert long_answer.state == "pending"
        for _ in range(2):
            deliver_again(long_answer)
        assert long_answer.state == "sent"
        assert "".join(texts(slack.bot_messages("C1", mention.ts))).split() == LONG.split()

    def test_another_sender_goes_on_if_one_died_between_two_parts(
        self, slack, mention, long_answer, monkeypatch
    ):
        slack.take_at_most(4000)
        renew, died = notices._renew, []

        def die_once(notice, **fields):
            if fields.get("messages_sent") == 2 and not died:
                died.append(True)
                raise notices._LeaseLost
            renew(notice, **fields)

        monkeypatch.setattr(notices, "_renew", die_once)
        deliver(long_answer)
        assert (long_answer.state, long_answer.messages_sent) == ("sending", 1)
        deliver_again(long_answer)
        assert long_answer.state == "sent"
        assert "".join(texts(slack.bot_messages("C1", mention.ts))).split() == LONG.split()

    @pytest.mark.parametrize("step", ["files.getUploadURLExternal", "files.completeUploadExternal"])
    def test_a_file_with_unknown_outcome_is_searched_for(self, slack, mention, answer, step):
        slack.fail_next("chat.postMessage", "msg_too_long")
        slack.drop_answer_next(step)
        assert deliver(answer).state == "sending"
        deliver_again(answer)
        assert (answer.state, answer.destination) == ("sent", "file")
        [posted] = slack.bot_messages("C1", mention.ts)
        assert answer.message_ts == posted["ts"]

    def test_a_direct_message_with_unknown_outcome_is_searched_for(self, slack, answer):
        slack.fail_next("chat.postMessage", "is_archived")
        slack.drop_answer_next("chat.postMessage")
        assert deliver(answer).state == "sending"
        deliver_again(answer)
        assert (answer.state, answer.destination) == ("sent", "dm")
        assert texts(slack.direct_messages()) == [SHORT]

    def test_a_message_is_not_posted_again_in_a_thread_that_cannot_be_searched(
        self, slack, mention, answer
    ):
        slack.drop_answer_next("chat.postMessage")
        slack.fail_next("conversations.replies", "missing_scope")
        deliver(answer)
        deliver_again(answer)
        assert (answer.state, answer.destination) == ("sent", "dm")
        assert len(slack.bot_messages("C1", mention.ts)) == 1

    def test_a_sender_without_its_lease_tries_no_further_way(self, slack, answer, monkeypatch):
        slack.fail_next("chat.postMessage", "msg_too_long")

        def taken_over(notice, **fields):
            raise notices._LeaseLost

        monkeypatch.setattr(notices, "_renew", taken_over)
        assert deliver(answer).state == "sending"
        assert len(slack.calls()) == 1


class TestOthers:
    """Notices other than answers go to the thread, or to the user alone."""

    @pytest.mark.parametrize("error", [*REFUSED_HERE, *REFUSED])
    def test_a_denial_that_the_thread_refuses_is_shown_to_the_user_alone(
        self, slack, mention, error
    ):
        slack.fail_next("chat.postMessage", error)
        denial = notices.claim("denial:1", Notice.Kind.DENIAL, mention, "No credits.")
        deliver(denial)
        assert (denial.state, denial.destination) == ("sent", "ephemeral")
        assert len(slack.calls()) == 2

    @pytest.mark.parametrize("error", ["invalid_blocks", "msg_blocks_too_long"])
    def test_refused_blocks_are_replaced_by_their_text(self, slack, mention, error):
        slack.fail_next("chat.postMessage", error)
        block = {"type": "section", "text": {"type": "mrkdwn", "text": "Which?"}}
        deliver(notices.claim("key", Notice.Kind.PICKER, mention, "Which?", blocks=[block]))
        [posted] = slack.bot_messages("C1", mention.ts)
        assert (posted["text"], posted.get("blocks")) == ("Which?", None)


def test_an_answer_of_any_length_is_kept_whole():
    assert wording.answer("&" * 50_000) == "&amp;" * 50_000
    assert wording.unescape(wording.answer("<&lt;>")) == "<&lt;>"

"""The demo Slack refuses what Slack refuses, and says why."""

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from devstack.demo_slack.block_kit import answer_violations, violations
from tests.fakes import BOT_TOKEN, FakeSlack


def plain(length: int) -> dict:
    return {"type": "plain_text", "text": "x" * length}


def mrkdwn(length: int) -> dict:
    return {"type": "mrkdwn", "text": "x" * length}


def section(**fields) -> dict:
    return {"type": "section", "text": mrkdwn(1), **fields}


def actions(**fields) -> dict:
    return {"type": "actions", "elements": [{"type": "button", "text": plain(1), **fields}]}


def select(options: int = 1, text: int = 1, value: int = 1, **fields) -> dict:
    each = {"text": plain(text), "value": "x" * value, **fields}
    return section(
        accessory={"type": "static_select", "placeholder": plain(1), "options": [each] * options}
    )


def overflow(options: int, **fields) -> dict:
    each = {"text": plain(1), "value": "x", **fields}
    return section(accessory={"type": "overflow", "options": [each] * options})


def confirm(**fields) -> dict:
    return {name: plain(1) for name in ("title", "text", "confirm", "deny")} | fields


CASES = [
    (lambda n: [{"type": "divider"}] * n, 50),
    (lambda n: [section(text=mrkdwn(n))], 3000),
    (lambda n: [section(fields=[mrkdwn(1)] * n)], 10),
    (lambda n: [section(fields=[mrkdwn(n)])], 2000),
    (lambda n: [section(block_id="x" * n)], 255),
    (lambda n: [{"type": "header", "text": plain(n)}], 150),
    (lambda n: [{"type": "context", "elements": [mrkdwn(1)] * n}], 10),
    (lambda n: [{"type": "actions", "elements": actions()["elements"] * n}], 25),
    (lambda n: [actions(text=plain(n))], 75),
    (lambda n: [actions(value="x" * n)], 2000),
    (lambda n: [actions(action_id="x" * n)], 255),
    (lambda n: [actions(url="x" * n)], 3000),
    (lambda n: [select(options=n)], 100),
    (lambda n: [select(text=n)], 75),
    (lambda n: [select(value=n)], 150),
    (lambda n: [{"type": "markdown", "text": "x" * n}], 12_000),
    (lambda n: [{"type": "image", "image_url": "x" * n, "alt_text": "x"}], 3000),
    (lambda n: [{"type": "image", "image_url": "x", "alt_text": "x" * n}], 2000),
    (lambda n: [{"type": "image", "image_url": "x", "alt_text": "x", "title": plain(n)}], 2000),
    (lambda n: [actions(accessibility_label="x" * n)], 75),
    (lambda n: [actions(confirm=confirm(title=plain(n)))], 100),
    (lambda n: [actions(confirm=confirm(text=mrkdwn(n)))], 300),
    (lambda n: [actions(confirm=confirm(confirm=plain(n)))], 30),
    (lambda n: [actions(confirm=confirm(deny=plain(n)))], 30),
    (lambda n: [select(description=plain(n))], 75),
    (lambda n: [overflow(n)], 5),
    (lambda n: [overflow(1, url="x" * n)], 3000),
]


@pytest.mark.parametrize(("blocks", "most"), CASES)
def test_each_limit_is_exact(blocks, most: int):
    assert violations(blocks(most)) == []
    assert violations(blocks(most + 1)) != []


@pytest.mark.parametrize(
    "block",
    [
        {},
        "text",
        {"type": "unknown"},
        {"type": "section"},
        {"type": "section", "text": "not an object"},
        section(text={"type": "mrkdwn", "text": ""}),
        {"type": "header", "text": mrkdwn(1)},
        {"type": "context", "elements": []},
        actions(style="green"),
        actions(text=mrkdwn(1)),
        section(accessory={"type": "unknown"}),
        section(footer="x"),
        section(text=mrkdwn(1) | {"emoji": True}),
        section(text=plain(1) | {"verbatim": True}),
        actions(tooltip="x"),
        actions(confirm="sure?"),
        actions(confirm=confirm(style="green")),
        select(text_color="red"),
        select(description=mrkdwn(1)),
        section(
            accessory={
                "type": "static_select",
                "options": [{"text": plain(1), "value": "x"}],
                "initial_option": {"text": plain(1), "value": "y"},
            }
        ),
        section(accessory={"type": "external_select", "min_query_length": -1}),
    ],
)
def test_anything_but_a_block_is_refused(block):
    assert violations([block]) != []


def test_names_of_blocks_and_actions_are_unique():
    assert violations([section(block_id="a"), section(block_id="a")]) != []
    button = actions(action_id="a")["elements"][0]
    assert violations([{"type": "actions", "elements": [button, button]}]) != []


def test_a_search_may_find_nothing_and_offers_at_most_100():
    option = {"text": plain(1), "value": "x"}
    assert answer_violations({"options": []}) == []
    assert answer_violations({"options": [option] * 100}) == []
    assert answer_violations({"options": [option] * 101}) != []


@pytest.mark.parametrize(
    "answer",
    [
        {"blocks": [section(text=mrkdwn(3001))]},
        {"options": [{"text": plain(76), "value": "x"}]},
        {"options": None},
        {"text": "x" * 40_001},
    ],
)
def test_wrong_answers_are_noticed(answer):
    assert answer_violations(answer) != []


def test_the_refusal_says_what_is_wrong():
    with FakeSlack() as slack:
        client = WebClient(BOT_TOKEN, base_url=slack.api_url, retry_handlers=[])
        with pytest.raises(SlackApiError) as refused:
            client.chat_postMessage(channel="C1", text="x", blocks=[section(text=mrkdwn(3001))])
        assert refused.value.response["error"] == "invalid_blocks"
        [reason] = refused.value.response["response_metadata"]["messages"]
        assert reason == "blocks[0].text.text: more than 3000 characters"
        assert slack.violations() == [reason]


def test_blocks_of_a_call_that_fails_are_checked_too():
    with FakeSlack() as slack:
        client = WebClient(BOT_TOKEN, base_url=slack.api_url, retry_handlers=[])
        slack.fail_next("chat.postMessage", "is_archived")
        with pytest.raises(SlackApiError):
            client.chat_postMessage(channel="C1", text="x", blocks=[section(text=mrkdwn(3001))])
        assert slack.violations() == ["blocks[0].text.text: more than 3000 characters"]


def field(**element) -> dict:
    return {
        "type": "input",
        "label": plain(1),
        "element": {"type": "plain_text_input", "action_id": "x", **element},
    }


def test_inputs_belong_in_views() -> None:
    assert violations([field()], in_view=True) == []
    assert violations([field()]) == ["blocks[0]: only views have inputs"]


@pytest.mark.parametrize(
    "block",
    [
        field(type="datepicker"),
        field(max_length=3001),
        field(max_length=0),
        field(min_length=-1),
        field(min_length=9, max_length=8),
        field(initial_value="xx", max_length=1),
        field(rows=3),
        {**field(), "hint": plain(2001)},
        field(action_id=""),
        field(placeholder=plain(151)),
        {**field(), "label": mrkdwn(1)},
        {**field(), "label": plain(2001)},
        {"type": "input", "label": plain(1)},
    ],
)
def test_wrong_inputs_are_refused(block: dict) -> None:
    assert violations([block], in_view=True) != []


def modal(**fields) -> dict:
    view = {"type": "modal", "title": plain(1), "submit": plain(1), "blocks": [field()]}
    return view | fields


@pytest.mark.parametrize(
    ("view", "most"),
    [
        (lambda n: modal(title=plain(n)), 24),
        (lambda n: modal(submit=plain(n)), 24),
        (lambda n: modal(close=plain(n)), 24),
        (lambda n: modal(callback_id="x" * n), 255),
        (lambda n: modal(external_id="x" * n), 255),
        (lambda n: modal(private_metadata="x" * n), 3000),
        (lambda n: modal(blocks=[{"type": "divider"}] * n), 100),
    ],
)
def test_each_limit_of_a_view_is_exact(view, most: int) -> None:
    with FakeSlack() as slack:
        client = WebClient(BOT_TOKEN, base_url=slack.api_url, retry_handlers=[])
        client.views_open(trigger_id=slack.slack.modals.trigger("U1"), view=view(most))
        with pytest.raises(SlackApiError) as refused:
            client.views_open(trigger_id=slack.slack.modals.trigger("U1"), view=view(most + 1))
        assert refused.value.response["error"] == "invalid_arguments"
        assert len(slack.violations()) == 1


@pytest.mark.parametrize(
    ("view", "error"),
    [
        (modal(title=None), "invalid_arguments"),
        (modal(title=mrkdwn(1)), "invalid_arguments"),
        (modal(submit=None), "invalid_arguments"),
        (modal(blocks=[]), "invalid_arguments"),
        (modal(type="home"), "invalid_arguments"),
        (modal(icon="x"), "invalid_arguments"),
        (modal(blocks=[section(text=mrkdwn(3000))] * 84), "view_too_large"),
    ],
)
def test_a_wrong_view_is_refused(view: dict, error: str) -> None:
    with FakeSlack() as slack:
        client = WebClient(BOT_TOKEN, base_url=slack.api_url, retry_handlers=[])
        with pytest.raises(SlackApiError) as refused:
            client.views_open(trigger_id=slack.slack.modals.trigger("U1"), view=view)
        assert refused.value.response["error"] == error
        assert slack.violations()


def test_a_home_tab_has_no_title() -> None:
    with FakeSlack() as slack:
        client = WebClient(BOT_TOKEN, base_url=slack.api_url, retry_handlers=[])
        view = {"type": "home", "blocks": [section()]}
        client.views_publish(user_id="U1", view=view)
        with pytest.raises(SlackApiError):
            client.views_publish(user_id="U1", view=view | {"title": plain(1)})
        assert slack.violations() == ["view.title: an unknown field"]


def test_edited_messages_are_checked_too() -> None:
    with FakeSlack() as slack:
        client = WebClient(BOT_TOKEN, base_url=slack.api_url, retry_handlers=[])
        posted = client.chat_postMessage(channel="C1", text="x")
        with pytest.raises(SlackApiError):
            client.chat_update(
                channel="C1", ts=posted["ts"], text="x", blocks=[section(text=mrkdwn(3001))]
            )
        assert slack.violations() == ["blocks[0].text.text: more than 3000 characters"]

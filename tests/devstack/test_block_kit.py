"""The demo Slack refuses what Slack refuses, and says why."""

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from devstack.demo_slack.block_kit import option_violations, violations
from tests.fakes import BOT_TOKEN, FakeSlack


def plain(length: int) -> dict:
    return {"type": "plain_text", "text": "x" * length}


def mrkdwn(length: int) -> dict:
    return {"type": "mrkdwn", "text": "x" * length}


def section(**fields) -> dict:
    return {"type": "section", "text": mrkdwn(1), **fields}


def actions(**fields) -> dict:
    return {"type": "actions", "elements": [{"type": "button", "text": plain(1), **fields}]}


def select(options: int = 1, text: int = 1, value: int = 1) -> dict:
    each = {"text": plain(text), "value": "x" * value}
    return section(
        accessory={"type": "static_select", "placeholder": plain(1), "options": [each] * options}
    )


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
    ],
)
def test_what_is_no_block_is_refused(block):
    assert violations([block]) != []


def test_names_of_blocks_and_actions_are_unique():
    assert violations([section(block_id="a"), section(block_id="a")]) != []
    button = actions(action_id="a")["elements"][0]
    assert violations([{"type": "actions", "elements": [button, button]}]) != []


def test_a_search_may_find_nothing_and_offers_at_most_100():
    option = {"text": plain(1), "value": "x"}
    assert option_violations([]) == []
    assert option_violations([option] * 100) == []
    assert option_violations([option] * 101) != []


def test_the_refusal_says_what_is_wrong():
    with FakeSlack() as slack:
        client = WebClient(BOT_TOKEN, base_url=slack.api_url, retry_handlers=[])
        with pytest.raises(SlackApiError) as refused:
            client.chat_postMessage(channel="C1", text="x", blocks=[section(text=mrkdwn(3001))])
        assert refused.value.response["error"] == "invalid_blocks"
        [reason] = refused.value.response["response_metadata"]["messages"]
        assert reason == "blocks[0].text.text: more than 3000 characters"
        assert slack.violations() == [reason]


def field(**element) -> dict:
    return {
        "type": "input",
        "label": plain(1),
        "element": {"type": "plain_text_input", "action_id": "x", **element},
    }


def test_inputs_belong_into_views() -> None:
    assert violations([field()], in_view=True) == []
    assert violations([field()]) == ["blocks[0]: only views have inputs"]


@pytest.mark.parametrize(
    "block",
    [
        field(type="datepicker"),
        field(max_length=3001),
        field(action_id=""),
        field(placeholder=plain(151)),
        {**field(), "label": mrkdwn(1)},
        {**field(), "label": plain(2001)},
        {"type": "input", "label": plain(1)},
    ],
)
def test_wrong_inputs_are_refused(block: dict) -> None:
    assert violations([block], in_view=True) != []

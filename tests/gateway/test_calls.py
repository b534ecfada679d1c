"""Calls that work: passed through unchanged, priced, and booked once."""

import json
from decimal import Decimal

from tests.gateway.conftest import World, messages_body
from tests.gateway.fake_provider import message, messages_stream


def test_a_message_passes_unchanged_and_is_booked_once(world: World) -> None:
    project = world.tollgate.project(credits=100)
    answer = world.post(world.tollgate.token(project))
    assert answer.status_code == 200
    assert answer.json() == message()
    assert answer.headers["request-id"] == "req_of_the_provider"
    [event] = world.booked(project)
    properties = event["properties"]
    assert Decimal(properties["$ai_total_cost_usd"]) == Decimal("0.0006")
    assert event["debited_micro"] == 72_000
    assert properties["$ai_billable"] is True
    assert properties["ai_product"] == "slack_app"
    assert (properties["$ai_input_tokens"], properties["$ai_output_tokens"]) == (100, 20)
    assert world.account(project) == {"spent": 72_000, "held": 0, "pending": 0}


def test_a_streamed_message_passes_unchanged(world: World) -> None:
    project = world.tollgate.project(credits=100)
    answer = world.post(world.tollgate.token(project), body=messages_body(stream=True))
    assert answer.content == b"".join(messages_stream())
    [event] = world.booked(project)
    assert event["debited_micro"] == 72_000
    assert event["properties"]["$ai_is_error"] is False
    assert json.loads(world.provider.requests[-1].body) == messages_body(stream=True)

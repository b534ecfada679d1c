"""Arbitrary signed payloads: the webhook answers, and acts on messages from people only."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.slack_bot.conftest import captured
from tests.slack_bot.test_events import json_values
from workflows.models import FollowUp, Mention, Notice

one_world_for_all_examples = settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PATHS = st.sampled_from(["/slack/events/", "/slack/interactivity/", "/slack/commands/"])


def count_of_effects(webhook) -> int:
    rows = sum(model.objects.count() for model in (Mention, FollowUp, Notice))
    return rows + len(webhook.slack.calls())


@one_world_for_all_examples
@given(path=PATHS, body=st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_are_answered_and_have_no_effects(webhook, workspace, path, body):
    assert webhook.deliver(body, path).status_code in (200, 401)
    assert count_of_effects(webhook) == 0


@one_world_for_all_examples
@given(data=st.data())
def test_a_bots_post_has_no_effects_whatever_else_is_wrong_with_it(webhook, workspace, data):
    payload = captured("mention_by_an_app")
    for part in (payload, payload["event"]):
        for name in data.draw(st.sets(st.sampled_from(sorted(part)), max_size=3)):
            if name not in ("bot_id", "event", "type"):
                part[name] = data.draw(json_values)
    assert webhook.deliver(payload).status_code == 200
    assert count_of_effects(webhook) == 0


@pytest.mark.parametrize("path", ["/slack/interactivity/", "/slack/commands/"])
@one_world_for_all_examples
@given(data=st.data())
def test_an_interaction_of_any_shape_is_answered_and_has_no_effects(webhook, workspace, path, data):
    payload = captured(data.draw(st.sampled_from(["repository_chosen", "repository_searched"])))
    for name in data.draw(st.sets(st.sampled_from(sorted(payload)), max_size=4)):
        payload[name] = data.draw(json_values)
    form = {"payload": payload, "text": data.draw(st.text()), "team_id": data.draw(st.text())}
    assert webhook.deliver(form, path).status_code == 200
    assert count_of_effects(webhook) == 0


@one_world_for_all_examples
@given(text=st.text(st.characters(exclude_categories=()), max_size=100))
def test_any_text_of_a_person_is_kept(webhook, workspace, no_temporal, text):
    payload = captured("mention", text=text)
    body = json.dumps(payload).encode()
    assert webhook.deliver(body).status_code == 200
    assert Mention.objects.get().state in ("received", "asked", "stopped")
    Mention.objects.all().delete()

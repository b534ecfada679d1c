"""Logs name no credential and quote no prompt."""

import json

from gateway.telemetry import logs
from tests.gateway.conftest import World, messages_body


def test_credentials_and_prompts_are_never_logged(world: World) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(project)
    prompt = "a prompt that nobody may read"
    world.post(token, body=messages_body(messages=[{"role": "user", "content": prompt}]))
    world.post(token, f"/slack_app/{token}")
    world.post(token, body=f'{{"model": "{token}", "max_tokens": "x"}}'.encode())
    log = world.log.read_text()
    assert "slack_app" in log
    assert token not in log
    assert prompt not in log
    assert "sk-ant-key-of-the-operator" not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {"call_id", "product", "status", "seconds"} <= lines[-1].keys()


def test_anything_like_a_credential_is_removed_from_the_log() -> None:
    secrets = ("pha_0123456789abcdef", "phx_0123456789abcdef", "sk-ant-0123456789abcdef")
    event = {"event": "odd", "error": " ".join((*secrets, "Bearer 0123456789abcdef"))}
    line = logs._render(None, "", event).decode()
    assert "odd" in line
    assert "0123456789abcdef" not in line

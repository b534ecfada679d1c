"""The manifest for Slack matches what the code does."""

import re
from pathlib import Path

import pytest
import yaml
from django.urls import resolve

from slack_bot import install

ROOT = Path(install.__file__).parent.parent
MANIFEST = yaml.safe_load(Path(install.__file__).with_name("manifest.yaml").read_text())

# https://docs.slack.dev/reference/methods/ and https://docs.slack.dev/reference/events/
SCOPES_OF_METHODS = {
    "auth_test": set(),
    "chat_getPermalink": set(),
    "chat_postEphemeral": {"chat:write"},
    "chat_postMessage": {"chat:write"},
    "chat_delete": {"chat:write"},
    "chat_update": {"chat:write"},
    "conversations_info": {"channels:read", "groups:read"},
    "conversations_open": {"im:write"},
    "conversations_replies": {
        "channels:history",
        "groups:history",
        "im:history",
        "mpim:history",
    },
    "files_upload_v2": {"files:write"},
    "oauth_v2_access": set(),
    "reactions_add": {"reactions:write"},
    "reactions_remove": {"reactions:write"},
    "users_info": {"users:read", "users:read.email"},
    "views_open": set(),
}
SCOPES_OF_EVENTS = {
    "app_mention": {"app_mentions:read"},
    "app_uninstalled": set(),
    "message.channels": {"channels:history"},
    "message.groups": {"groups:history"},
    "message.im": {"im:history"},
    "message.mpim": {"mpim:history"},
    "tokens_revoked": set(),
}


def methods_called() -> set[str]:
    """Return the Web API methods that the code calls."""
    sources = [*ROOT.glob("slack_bot/**/*.py"), *ROOT.glob("workflows/**/*.py")]
    sources += ROOT.glob("coding_tasks/**/*.py")
    family = r"(?:auth|chat|conversations|files|oauth|reactions|team|users|views)"
    called = re.compile(rf"\.({family}_[A-Za-z0-9_]+)\(")
    return {name for source in sources for name in called.findall(source.read_text())}


def test_the_scopes_are_those_of_the_methods_events_and_commands_and_no_others():
    called, events = methods_called(), MANIFEST["settings"]["event_subscriptions"]["bot_events"]
    assert {"chat_postMessage", "users_info"} <= called
    needed = {"commands", "files:read"}.union(  # `thread_context` downloads files
        *(SCOPES_OF_METHODS[method] for method in called),
        *(SCOPES_OF_EVENTS[event] for event in events),
    )
    assert set(MANIFEST["oauth_config"]["scopes"]["bot"]) == needed
    assert set(install.SCOPES) == needed


def addresses() -> list[str]:
    settings, features = MANIFEST["settings"], MANIFEST["features"]
    return [
        settings["event_subscriptions"]["request_url"],
        settings["interactivity"]["request_url"],
        settings["interactivity"]["message_menu_options_url"],
        features["slash_commands"][0]["url"],
        MANIFEST["oauth_config"]["redirect_urls"][0],
    ]


@pytest.mark.parametrize("address", addresses())
def test_every_address_is_one_of_ours(address):
    host = "https://tollgate.example.com"
    assert address.startswith(host)
    assert resolve(address.removeprefix(host))


def test_people_can_be_written_to_directly():
    assert MANIFEST["features"]["app_home"]["messages_tab_enabled"] is True


def test_tokens_do_not_expire():
    assert MANIFEST["settings"]["token_rotation_enabled"] is False

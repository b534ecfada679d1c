"""The manifest for Slack matches what the code does."""

import re
from pathlib import Path

import pytest
import yaml
from django.core.management import call_command
from django.urls import resolve

from slack_bot import install
from slack_bot.manifest import manifest

ROOT = Path(install.__file__).parent.parent
MANIFEST = yaml.safe_load(Path(install.__file__).with_name("manifest.yaml").read_text())

# https://docs.slack.dev/reference/methods/ and https://docs.slack.dev/reference/events/
SCOPES_OF_METHODS = {
    "agents_sessions_rename": {"chat:write"},
    "agents_sessions_setStatus": {"chat:write"},
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
    "files_info": {"files:read"},
    "files_upload_v2": {"files:write"},
    "oauth_v2_access": set(),
    "reactions_add": {"reactions:write"},
    "reactions_remove": {"reactions:write"},
    "users_info": {"users:read", "users:read.email"},
    "views_open": set(),
    "views_publish": set(),
}
SCOPES_OF_EVENTS = {
    "agent_session_stopped": {"assistant:write"},  # of every app that is declared as an agent
    "app_home_opened": set(),
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
    family = r"(?:agents|assistant|auth|chat|conversations|files|oauth|reactions|team|users|views)"
    called = re.compile(rf"\.({family}_[A-Za-z0-9_]+)\(")
    return {name for source in sources for name in called.findall(source.read_text())}


def test_the_scopes_are_those_of_the_methods_events_and_commands_and_no_others():
    called, events = methods_called(), MANIFEST["settings"]["event_subscriptions"]["bot_events"]
    assert {"chat_postMessage", "users_info"} <= called
    needed = {"commands", "files:read"}.union(  # `downloads` reads files
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


def test_people_can_be_written_to_directly_and_have_a_home_tab():
    home = MANIFEST["features"]["app_home"]
    assert home["messages_tab_enabled"] is True
    assert home["home_tab_enabled"] is True


def test_the_app_is_declared_as_an_agent_with_prompts_to_begin_with():
    agent = MANIFEST["features"]["agent_view"]
    assert 0 < len(agent["agent_description"]) <= 300
    assert 0 < len(agent["suggested_prompts"]) <= 4
    assert all(prompt["title"] and prompt["message"] for prompt in agent["suggested_prompts"])


def test_methods_that_slack_retires_are_not_called():
    assert not {method for method in methods_called() if method.startswith("assistant_")}


def test_tokens_do_not_expire():
    assert MANIFEST["settings"]["token_rotation_enabled"] is False


def test_the_servers_own_address_replaces_the_example():
    made = manifest("https://bot.acme.test")
    assert "example.com" not in made
    assert yaml.safe_load(made.replace("bot.acme.test", "tollgate.example.com")) == MANIFEST


def test_in_socket_mode_slack_has_no_address_to_send_to():
    made = yaml.safe_load(manifest("https://bot.acme.test", socket_mode=True))
    assert made["settings"]["socket_mode_enabled"] is True
    redirect = made["oauth_config"].pop("redirect_urls")
    assert redirect == ["https://bot.acme.test/slack/oauth_redirect/"]
    assert "url" not in yaml.safe_dump(made)
    for part in ("features", "oauth_config", "settings"):
        assert made[part].keys() >= MANIFEST[part].keys() - {"redirect_urls"}
    events = MANIFEST["settings"]["event_subscriptions"]["bot_events"]
    assert made["settings"]["event_subscriptions"]["bot_events"] == events
    assert made["oauth_config"]["scopes"] == MANIFEST["oauth_config"]["scopes"]


def test_slack_is_not_asked_to_send_browsers_to_an_address_without_tls():
    made = yaml.safe_load(manifest("http://localhost:8000", socket_mode=True))
    assert made["oauth_config"].keys() == {"scopes"}


def test_the_command_prints_it(settings, capsys):
    settings.PUBLIC_URL = "https://bot.acme.test"
    call_command("slack_manifest", socket_mode=True)
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["settings"]["socket_mode_enabled"] is True

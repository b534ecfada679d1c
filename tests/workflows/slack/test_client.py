"""The clients with which Slack is called."""

import ssl

from projects.models import SlackWorkspace
from tests.fakes import FakeSlack
from workflows.slack.client import client_for, web_client

NOBODY = "http://127.0.0.1:9"


def test_a_proxy_is_not_asked_for_a_slack_that_is_exempt_from_it(monkeypatch, settings):
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, NOBODY)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with FakeSlack() as slack:
        settings.SLACK_API_URL = slack.api_url
        assert web_client("xoxb-demo").auth_test()["team_id"] == "T1"


def test_clients_share_the_authorities_that_they_trust():
    trusted = web_client().ssl
    assert (trusted.verify_mode, trusted.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert client_for(SlackWorkspace(bot_token="xoxb-demo")).ssl is trusted

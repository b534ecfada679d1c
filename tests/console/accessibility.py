"""Every page that people see, examined by axe-core: `make accessibility`.

Wide and narrow, light and dark. A finding that axe-core calls serious or critical is an error.
"""

import sys
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from slack_sdk import WebClient

from console.usage.tables import TABLES
from tests.conftest import wait_until
from tests.console.busy_month import BusyMonth
from tests.console.test_in_browser import WIDE, eyes, where
from tests.fakes import BOT_TOKEN, FakeSlack

__all__ = ["eyes", "where"]
pytestmark = pytest.mark.django_db(transaction=True)
PHONE = {"width": 390, "height": 844}
BAD = {"serious", "critical"}
FADED = "!document.getAnimations().some(each => each instanceof CSSTransition)"


class Examination:
    """Opens pages in all four ways and collects what axe-core finds."""

    def __init__(self, eyes) -> None:
        self._eyes = eyes
        self.pages = 0
        self.findings: list[str] = []

    def examine(self, name: str, url: str, *, steps=lambda page: None, context=None) -> None:
        page = (context or self._eyes._context).new_page()
        page.emulate_media(reduced_motion="reduce")
        page.goto(url if url.startswith("http") else self._eyes._address + url)
        steps(page)
        for size in (WIDE, PHONE):
            page.set_viewport_size(size)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                wait_until(lambda: page.evaluate(FADED), what="the end of transitions")
                self._note(f"{name}, {size['width']} px, {scheme}", page)
        page.close()

    def _note(self, where: str, page) -> None:
        self.pages += 1
        for found in Axe().run(page).response["violations"]:
            if found["impact"] in BAD:
                for node in found["nodes"]:
                    why = [each["message"] for each in [*node["any"], *node["all"], *node["none"]]]
                    finding = f"{where}: {found['id']}: {node['html'][:200]} {why[:2]}"
                    sys.stdout.write(f"{finding}\n")
                    sys.stdout.flush()
                    self.findings.append(finding)


@pytest.fixture
def examination(eyes) -> Examination:
    return Examination(eyes)


@pytest.fixture
def demo_slack() -> Iterator[FakeSlack]:
    with FakeSlack() as slack:
        slack.post("<@UBOT> in acme/web-shop, how is the total computed? `sum(basket)`")
        bot = WebClient(BOT_TOKEN, base_url=slack.api_url)
        thread = slack.post("<@UBOT> please look")["ts"]
        button = {
            "type": "button",
            "text": {"type": "plain_text", "text": "Stop"},
            "action_id": "a",
        }
        blocks = [
            {"type": "header", "text": {"type": "plain_text", "text": "Your tasks"}},
            {
                "type": "section",
                "text": {"type": "mrkdwn", "text": "*Fix* _it_ `now` <https://e.x>"},
            },
            {"type": "context", "elements": [{"type": "mrkdwn", "text": "12.00 credits"}]},
            {
                "type": "actions",
                "elements": [button, {**button, "action_id": "b", "style": "danger"}],
            },
            {"type": "divider"},
        ]
        bot.chat_postMessage(channel="C1", text="An answer", blocks=blocks, thread_ts=thread)
        bot.views_publish(user_id="U1", view={"type": "home", "blocks": blocks})
        yield slack


def test_no_page_has_a_serious_finding(
    examination: Examination, where, busy_month: BusyMonth, demo_slack: FakeSlack
) -> None:
    acme = busy_month.acme
    for name, path in where.items():
        examination.examine(name, path)
    for table in TABLES:
        usage = reverse("admin:projects_organization_table", args=[acme.pk, table])
        examination.examine(f"table of {table}", usage)
    for name in ("account", "limit", "creditgrant", "cap", "usageevent", "auditentry"):
        examination.examine(f"list of {name}", reverse(f"admin:billing_{name}_changelist"))
    for name in ("limit", "creditgrant", "cap"):
        examination.examine(f"form of {name}", reverse(f"admin:billing_{name}_add"))
        examination.examine(
            f"errors of {name}", reverse(f"admin:billing_{name}_add"), steps=send_empty
        )
    examination.examine("records", reverse("admin:records"))
    examination.examine("setup", "/setup/")
    examination.examine("search", reverse("threads") + "?q=nobody")
    examination.examine("mention", reverse("admin:workflows_mention_changelist"))
    examination.examine(
        "one mention",
        reverse("admin:workflows_mention_change", args=[busy_month.refused.pk]),
    )
    examination.examine(
        "second look", reverse("admin:projects_project_changelist"), steps=choose_rotation
    )
    stranger = examination._eyes._context.browser.new_context()
    for name, path in (("log-in", "/login/"), ("admin's log-in", "/admin/login/")):
        examination.examine(name, path, context=stranger)
    examination.examine("install", "/slack/install/", context=stranger)
    examination.examine("demo Slack", demo_slack.url, context=stranger)
    examination.examine("demo Home tab", demo_slack.url, context=stranger, steps=open_home)
    stranger.close()
    sys.stdout.write(f"{examination.pages} looks at pages\n")
    assert examination.findings == []


def send_empty(page) -> None:
    page.locator("input[name=_save]").click()
    page.locator(".errornote").wait_for()


def choose_rotation(page) -> None:
    page.locator("input.action-select").first.check()
    page.locator("select[name=action]").first.select_option(value="rotate_api_tokens")
    page.locator("button[name=index]").first.click()
    page.get_by_text("What will happen").wait_for()


def open_home(page) -> None:
    page.locator("#apps button").first.click()
    page.get_by_text("Your tasks").wait_for()

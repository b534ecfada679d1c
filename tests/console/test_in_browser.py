"""The report pages in a real Chromium: light and dark, wide and narrow.

Set `SCREENSHOTS` to a directory to keep pictures there (`make screenshots`).
"""

import io
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from billing.models import DecisionRecord
from devstack.screenshots import browser
from slack_bot.models import SlackSocket
from tests.console.busy_month import BusyMonth

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no playwright: make screenshots installs it"
)
pytestmark = [
    pytest.mark.skipif(browser() is None, reason="no Chromium on this machine"),
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
]
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars"),
]
KEPT = os.environ.get("SCREENSHOTS")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}


class Eyes:
    """A logged-in browser that records a page's errors and its requests to other sites."""

    def __init__(self, context, address: str) -> None:
        self._context = context
        self._address = address
        self.complaints: list[str] = []

    def look(self, path: str, *, keep: str = "", narrow: bool = False, dark: bool = False):
        """Open a page. If `keep` is given, keep a picture of the whole page under that name."""
        page = self._context.new_page()
        page.set_viewport_size(NARROW if narrow else WIDE)
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(f"{path}: {error}"))
        page.on("requestfailed", lambda failed: self.complaints.append(f"{path}: {failed.url}"))
        page.on("request", self._note_foreign)
        page.goto(self._address + path, wait_until="networkidle")
        if keep and KEPT:
            self._keep(page.screenshot(full_page=keep != "first-page"), keep)
        return page

    def _note(self, message) -> None:
        if message.type in ("error", "warning") and "favicon.ico" not in message.location["url"]:
            self.complaints.append(message.text)

    def _note_foreign(self, request) -> None:
        if not request.url.startswith((self._address, "data:")):
            self.complaints.append(f"foreign: {request.url}")

    def _keep(self, png: bytes, name: str) -> None:
        from PIL import Image

        image = Image.open(io.BytesIO(png)).convert("RGB")
        few = image.quantize(128, dither=Image.Dither.NONE)
        directory = Path(KEPT or "")
        directory.mkdir(parents=True, exist_ok=True)
        few.save(directory / f"{name}.png", optimize=True)


@pytest.fixture
def where(busy_month: BusyMonth) -> dict[str, str]:
    """Return the paths of the pages by the names of their pictures."""
    world = busy_month
    usage, backtest = "admin:projects_organization_usage", "admin:projects_organization_backtest"
    refused, worked = world.refused, world.worked
    decision = DecisionRecord.objects.filter(account__organization=world.globex).first()
    return {
        "first-page": reverse("admin:index"),
        "organizations": reverse("admin:projects_organization_changelist"),
        "usage": reverse(usage, args=[world.acme.pk]),
        "usage-limited": reverse(usage, args=[world.globex.pk]),
        "usage-empty": reverse(usage, args=[world.initech.pk]),
        "decision": reverse("admin:billing_decisionrecord_change", args=[decision.pk]),
        "backtest": reverse(backtest, args=[world.acme.pk]) + "?limit=600",
        "threads": reverse("threads") + "?q=U0USERZ",
        "thread": reverse("thread", args=[worked.workspace_id, "C0SHOP", worked.thread_ts]),
        "thread-refused": reverse(
            "thread", args=[refused.workspace_id, "C0SHOP", refused.thread_ts]
        ),
    }


@pytest.fixture
def eyes(busy_month: BusyMonth, where, live_server) -> Iterator[Eyes]:
    """A browser logged in as an administrator. It is closed before the database."""
    carla = get_user_model().objects.create_superuser("carla")
    client = Client()
    client.force_login(carla)
    session = client.cookies["sessionid"].value
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=browser(), args=FLAGS)
        context = chromium.new_context(locale="en-GB", timezone_id="UTC")
        context.add_cookies([{"name": "sessionid", "value": session, "url": live_server.url}])
        yield Eyes(context, live_server.url)
        chromium.close()


def test_every_page_is_readable_and_loads_nothing_from_other_sites(eyes, where):
    for name, path in where.items():
        eyes.look(path, keep=name).close()
    for dark in (True, False):
        page = eyes.look(where["first-page"], narrow=True, dark=dark)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        page.close()
    for name in ("usage", "thread-refused"):
        eyes.look(where[name], keep=f"{name}-dark", dark=True).close()
        page = eyes.look(where[name], keep=f"{name}-narrow", narrow=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], name
        page.close()
    assert eyes.complaints == []


def test_the_charts_are_drawn_with_what_the_table_says(eyes, where):
    page = eyes.look(where["usage"])
    assert page.evaluate("Object.keys(Chart.instances).length") == 3
    assert not page.locator("details.as-table").evaluate("table => table.open")
    page.locator("details.as-table summary").click()
    table = page.locator("details.as-table tfoot").inner_text().split("\t")
    drawn = page.evaluate(
        "Chart.getChart('chart-so-far').data.datasets.map(set => [set.label, set.shown.at(-1)])"
    )
    assert ["Slack bot", table[1].strip()] in drawn
    assert ["limit: 1,000.00", "1,000.00"] in drawn


def test_a_picker_chooses_nothing_by_itself(eyes, busy_month):
    page = eyes.look(reverse("admin:billing_limit_add"))
    page.click(".field-account .select2-selection")
    page.keyboard.type("Acme")
    page.wait_for_function(
        "document.querySelectorAll('.select2-results__option[aria-selected]').length === 2"
    )
    assert page.locator(".select2-results__option--highlighted").count() == 0
    page.keyboard.press("Enter")
    assert page.locator("#id_account").input_value() == ""
    page.locator(".select2-results__option").first.click()
    assert page.locator("#id_account").input_value() != ""


def test_without_javascript_the_table_is_there(eyes, where, live_server):
    context = eyes._context.browser.new_context(java_script_enabled=False)
    context.add_cookies(eyes._context.cookies())
    page = context.new_page()
    page.goto(live_server.url + where["usage"])
    assert page.locator("details.as-table tfoot").is_visible()
    assert not page.locator("#chart-so-far").is_visible()
    context.close()


def test_the_setup_page_shows_by_itself_what_changes(eyes, monkeypatch):
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # the browser runs a loop here
    page = eyes.look("/setup/")
    step = page.locator("#setup-steps li", has_text="Let Slack reach this server")
    assert "done" not in step.inner_text()
    page.locator("button[data-copies]").first.click()
    page.locator("button[data-copies]", has_text="Copied").wait_for()
    now = timezone.now()
    SlackSocket.objects.create(pk=uuid.uuid4(), process="bot:1", seen_at=now, connected_since=now)
    step.get_by_text("Listening in Socket Mode: bot:1").wait_for()
    for dark in (True, False):
        narrow = eyes.look("/setup/", narrow=True, dark=dark)
        assert narrow.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        narrow.close()
    page.close()
    assert eyes.complaints == []

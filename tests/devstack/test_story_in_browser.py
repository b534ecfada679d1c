"""The whole story on the demo's page, in a real Chromium: from a mention to the work after a grant.

It needs the packages that `make screenshots` installs. Set `SCREENSHOTS` to a directory to keep
pictures there.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from devstack.isolation import throw_away_environment
from devstack.screenshots import browser
from tests.devstack.stack import Stack, http

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no playwright: make screenshots installs it"
)
pytestmark = [
    pytest.mark.skipif(browser() is None, reason="no Chromium on this machine"),
    pytest.mark.slow,
    pytest.mark.timeout(480),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
KEPT = os.environ.get("SCREENSHOTS")
PATIENCE = 25_000  # milliseconds


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose work takes long enough to be watched."""
    if reason := Bubblewrap().why_missing():
        pytest.skip(f"no sandbox on this machine: {reason}")
    directory = tmp_path_factory.mktemp("story")
    environment = throw_away_environment(os.environ, str(directory))
    environment |= {"DEFAULT_AGENT": "small", "PROGRESS_AFTER_SECONDS": "1"}
    stack = Stack(directory, environment)
    stack.start()
    yield stack
    stack.stop()


class Person:
    """Somebody at the demo's page."""

    def __init__(self, page, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        self.thread = page.locator("#thread")
        self._pictures = 0

    def mention(self, text: str) -> None:
        """Mention the bot in the channel. The page then shows the thread."""
        self.page.fill("#compose textarea", f"@Tollgate {text}")
        self.page.click("#compose .send")
        self.reads(text)

    def reads(self, text: str) -> None:
        """Wait until the thread shows this text."""
        self.thread.get_by_text(text).last.wait_for()

    def clicks(self, label: str, *, within="#thread") -> None:
        """Click the last button with this label."""
        self.page.locator(within).get_by_role("button", name=label).last.click()

    def looks(self, name: str) -> None:
        """Look at the page wide, dark and narrow; fail if a narrow page has to be scrolled."""
        self._pictures += 1
        looks = {"light": ("light", WIDE), "dark": ("dark", WIDE), "narrow": ("light", NARROW)}
        for look, (scheme, size) in looks.items():
            self.page.emulate_media(color_scheme=scheme)
            self.page.set_viewport_size(size)
            assert self.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            if KEPT:
                path = Path(KEPT) / f"story-{self._pictures:02}-{name}-{look}.png"
                self.page.screenshot(path=path)
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size(WIDE)


@pytest.fixture
def olivia(stack: Stack) -> Iterator[Person]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=browser(), args=FLAGS)
        context = chromium.new_context(locale="en-GB", timezone_id="UTC", viewport=WIDE)
        person = Person(context.new_page(), stack.slack)
        yield person
        if KEPT:  # what the page looked like when a step failed
            person.page.screenshot(path=Path(KEPT) / "story-end.png")
        chromium.close()


def test_a_person_gets_work_done_runs_out_of_credits_and_goes_on(stack: Stack, olivia: Person):
    ask_before_every_run(stack)

    olivia.mention("add a --version flag")
    olivia.clicks("Run for up to")
    olivia.reads("I added the flag --version")
    olivia.looks("answer")
    olivia.clicks("Undo")
    olivia.looks("undo-question")
    olivia.thread.locator("[role=alertdialog] button").first.click()
    olivia.reads("undone")
    olivia.looks("undone")

    look_and_think(stack)
    olivia.mention("how is the total of a basket computed?")
    olivia.page.locator("#thread").get_by_role("button", name="Run for up to").wait_for()
    olivia.looks("quote")
    olivia.clicks("Run for up to")
    olivia.page.locator("#thread").get_by_role("button", name="Stop", exact=True).wait_for()
    olivia.looks("progress")
    olivia.clicks("Stop")
    olivia.page.locator("#thread").get_by_role("button", name="Start again").wait_for()
    olivia.looks("stopped")

    stack.set_limit("0")
    olivia.mention("what does the shop sell?")
    olivia.page.locator("#thread").get_by_role("button", name="Ask for more credits").wait_for()
    olivia.looks("denial")
    olivia.clicks("Ask for more credits")
    approve = olivia.page.locator("#channel").get_by_role("button", name="Approve").first
    approve.wait_for()
    olivia.looks("request")
    approve.click()
    olivia.reads("[demo model]")
    olivia.looks("went-on-by-itself")

    olivia.page.get_by_role("button", name="⌂").click()
    olivia.page.locator("#home h3").first.wait_for()
    olivia.looks("home")
    assert olivia.complaints == []


def look_and_think(stack: Stack) -> None:
    """Have the model use a tool at once, and then think for a minute."""
    replies = [
        {"text": "I look at the files.", "tools": [{"name": "list", "arguments": {}}]},
        {"text": "[demo model] It is the sum of the prices.", "delay": 60},
    ]
    assert http(f"http://127.0.0.1:{stack.values['DEMO_MODEL_PORT']}/_control/replies", replies)


def ask_before_every_run(stack: Stack) -> None:
    ask = (
        "from projects.models import Project\n"
        "from workflows.models import CostConfirmation\n"
        f"project = Project.objects.get(pk={stack.project['project_id']})\n"
        "CostConfirmation.objects.create(project=project, ask_above_micro=0)"
    )
    stack.manage("shell", "--verbosity", "0", "-c", ask)

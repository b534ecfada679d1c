"""The tour: `python -m devstack.demo`, behind `make demo`.

It runs on its own stack, on free ports and in a folder that is removed afterwards. The caller's
Slack and provider keys don't reach that stack. Exit status 0 means that every step was seen.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from devstack.demo_admin import Admin, rows_below
from devstack.env_file import read_env_file
from devstack.isolation import throw_away_environment
from devstack.settings import ROOT

START_WITHIN = 120.0  # seconds
STEP_WITHIN = 30.0  # seconds
MONTHLY_CREDITS = "9"
LONG_ANSWER_TOKENS = 4000
CHANNEL, USER = "C1", "U1"  # general, and Olivia, who may approve credits

Json = Any


class NotSeen(Exception):
    """The tour waited for something that did not happen; the message says what."""


def main() -> int:
    """Run the tour and print it; return the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tollgate-demo-") as directory,
            running_stack(Path(directory)) as tour,
        ):
            tour.run()
    except NotSeen as error:
        print(f"\nNot seen: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\nEvery step was seen, in {time.monotonic() - began:.0f} s.")
    print(
        "Try it yourself: make up. Mention the bot on the demo Slack's page, then open the admin."
    )
    return 0


@contextmanager
def running_stack(directory: Path) -> Iterator["Tour"]:
    """Run a throw-away stack until the block ends."""
    print("Starting a separate stack on free ports: two Redis servers, Temporal, web, workers,")
    print("gateway, a demo Slack and a demo model …", flush=True)
    log = directory / "log"
    environment = throw_away_environment(os.environ, str(directory))
    environment["DEFAULT_AGENT"] = "reader"  # one call of the model for each mention
    python = [sys.executable, "-m"]
    with log.open("wb") as output:
        stack = subprocess.Popen(
            [*python, "devstack.supervision.child", str(os.getpid()), *python, "devstack"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_for_start(stack, directory)
        yield Tour(directory, environment)
    except NotSeen:
        print("\nThe last lines of the stack's log:", file=sys.stderr)
        sys.stderr.write("".join(log.read_text(errors="replace").splitlines(True)[-30:]))
        raise
    finally:
        stack.terminate()
        stack.wait()


def _wait_for_start(stack: "subprocess.Popen[bytes]", directory: Path) -> None:
    deadline = time.monotonic() + START_WITHIN
    while not (directory / "ready").exists():
        if stack.poll() is not None:
            raise NotSeen("the start of the stack: it ended, and its last line says why")
        if time.monotonic() > deadline:
            raise NotSeen(f"the start of the stack within {START_WITHIN:g} s")
        time.sleep(0.1)


class Tour:
    """The steps of the tour on a running stack."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.values = read_env_file(directory / "env")
        self.environment = environment | self.values
        self.project = json.loads((directory / "project.json").read_text())
        self.slack = f"http://127.0.0.1:{self.values['DEMO_SLACK_PORT']}"
        self.model = f"http://127.0.0.1:{self.values['DEMO_MODEL_PORT']}"

    def run(self) -> None:
        """Go through all steps. Raise `NotSeen` at the first that does not happen."""
        project_id = str(self.project["project_id"])
        self._manage("set_limit", project_id, "ai_credits", MONTHLY_CREDITS)
        _step(f"The team has {MONTHLY_CREDITS} AI credits a month.")

        _step("1. A mention that works")
        self._mention_that_works("how does the web shop compute the total of a basket?")
        used = self._usage_above(0)

        _step("2. Credits burning")
        answer = {
            "text": "[demo model] A long answer, of which only the bill is shown here.",
            "usage": {"input": 2500, "output": LONG_ANSWER_TOKENS},
        }
        _http(f"{self.model}/_control/replies", [answer])
        self._mention_that_works("rewrite the checkout of the web shop")
        self._usage_above(used + 5)

        _step("3. A denial in the thread: less than one credit is left, too little to start")
        thread = self._mention("add a discount to the web shop's basket")
        denial = self._reply_in(thread, lambda text: "Top up at" in text)
        _show("Tollgate", denial["text"])
        if self._messages(thread)[0]["reactions"]:
            raise NotSeen("a denial without a reaction: the bot began to work anyway")

        _step("4. A top-up: Olivia asks for credits, approves them, and the work starts by itself")
        self._click("Ask for more credits")
        self._click("Approve")
        self._answer_in(thread)
        self._print_quota()

        _step("5. A failure of the provider, and the same mention again")
        failure = {"error": "invalid_request_error", "status": 400}
        _http(f"{self.model}/_control/replies", [failure])
        thread = self._mention("explain the web shop's basket")
        _show("Tollgate", self._reply_in(thread, lambda text: True)["text"])
        self._click("Start again")
        self._answer_in(thread)

        _step("6. What an admin sees: who asked for credits, and who topped up")
        self._show_admin()

    # --- parts of the steps ----------------------------------------------------------------------

    def _mention_that_works(self, request: str) -> None:
        self._answer_in(self._mention(request))

    def _answer_in(self, thread: str) -> None:
        reply = self._reply_in(thread, lambda text: "[demo model]" in text)
        _show("Tollgate", reply["text"])

    def _click(self, label: str) -> None:
        """Click the newest button in Olivia's channel whose label begins like this."""

        def find() -> Json:
            state = _http(f"{self.slack}/page/state?user={USER}")
            for message in reversed(state["messages"][CHANNEL]):
                for block in message.get("blocks", ()):
                    for element in block.get("elements", ()):
                        if element["type"] == "button" and element["text"]["text"].startswith(
                            label
                        ):
                            return message["ts"], block, element
            return None

        ts, block, element = _until(find, f"the button {label}")
        _show("Olivia", f"clicks {element['text']['text']!r}")
        action = {"type": "button", "block_id": block.get("block_id", "")}
        action |= {"action_id": element["action_id"], "value": element.get("value", "")}
        clicked = {"user": USER, "channel": CHANNEL, "ts": ts, "action": action}
        _http(f"{self.slack}/page/actions", clicked)

    def _show_admin(self) -> None:
        url = f"{self.values['TOLLGATE_URL']}/admin/"
        try:
            admin = Admin(url, "admin", self.values["ADMIN_PASSWORD"])
            asked = rows_below(admin.page("workflows/creditrequest/"), "State")
            audited = rows_below(admin.page("billing/auditentry/"), "Reason")
        except OSError as error:
            raise NotSeen(f"the pages of {url}: {error}") from error
        if not (asked and audited):
            raise NotSeen("the request for credits and the top-up in the admin")
        _show("Asked", ", ".join(filter(None, asked[0])))
        _show("Audit", ", ".join(filter(None, audited[0])))

    def _mention(self, request: str) -> str:
        _show("Olivia", f"@Tollgate {request}")
        post = {"channel": CHANNEL, "user": USER, "text": f"<@UBOT> {request}"}
        return str(_http(f"{self.slack}/_control/posts", post)["ts"])

    def _reply_in(self, thread: str, wanted: Callable[[str], bool]) -> Json:
        def find() -> Json:
            for message in self._messages(thread)[1:]:
                if message.get("bot_id") and wanted(message["text"]):
                    return message
            return None

        return _until(find, "the bot's reply in the thread")

    def _messages(self, thread: str) -> Json:
        return _http(f"{self.slack}/_control/messages?channel={CHANNEL}&thread_ts={thread}")

    def _usage_above(self, least: float) -> float:
        """Wait until the usage is above `least` credits, print the account, return the usage."""
        _until(lambda: (self._quota()["usage"] or 0) > least, f"usage above {least:g} credits")
        return self._print_quota()

    def _print_quota(self) -> float:
        quota = self._quota()
        left = "" if quota["remaining"] is None else f", {quota['remaining']:.2f} left"
        print(f"      {quota['usage']:.2f} of {quota['limit']:g} credits used{left}", flush=True)
        return float(quota["usage"])

    def _quota(self) -> Json:
        url = f"{self.values['TOLLGATE_URL']}/api/projects/{self.project['project_id']}"
        answer = _http(f"{url}/quota_limits/", token=self.project["personal_api_key"])
        return answer["limited"]["ai_credits"]

    def _manage(self, *arguments: str) -> None:
        ran = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise NotSeen(f"manage.py {' '.join(arguments)}: {ran.stderr.strip()[-500:]}")


def _http(url: str, body: Json = None, token: str = "") -> Json:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(url, data, headers), timeout=10) as response:
            return json.load(response)
    except OSError as error:
        raise NotSeen(f"an answer of {url}: {error}") from error


def _until(find: Callable[[], Json], what: str) -> Json:
    """Poll until something is found and return it. Raise `NotSeen` after half a minute."""
    deadline = time.monotonic() + STEP_WITHIN
    while True:
        found = find()
        if found:
            return found
        if time.monotonic() > deadline:
            raise NotSeen(f"{what} within {STEP_WITHIN:g} s")
        time.sleep(0.1)


def _step(title: str) -> None:
    print(f"\n{title}", flush=True)


def _show(who: str, text: str) -> None:
    print(f"      {who}: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

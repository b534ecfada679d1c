"""The whole system: the tour of `make demo`, mentions, refusals, and the death of every process."""

import io
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from benchmarks.load.processes import family
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from devstack import demo
from devstack.isolation import throw_away_environment
from devstack.servers import free_port
from tests import settings as suite
from tests.conftest import wait_until
from tests.devstack.coding import NAME as SHOP
from tests.devstack.coding import add_shop, commits, serving_shop
from tests.devstack.processes import wait_until_gone
from tests.devstack.stack import QUESTION, Stack, http
from tests.postgres import postgres_server

pytestmark = [pytest.mark.slow, pytest.mark.database, pytest.mark.timeout(480)]

# Enough for every kill below: a call whose gateway was killed costs its whole hold, 9 credits.
ENOUGH_CREDITS = "10000"
BLOCKED = "@posthog/quota-limits/ai_credits"
QUESTION_OF_RUN = {"role": "user", "content": "hello"}


@pytest.fixture(scope="module")
def new_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("stack")
    inherited = {"SLACK_CLIENT_ID": "1.2", "ANTHROPIC_API_KEY": "sk-ant-not-to-be-used"}
    environment = throw_away_environment(os.environ | inherited, str(directory))
    environment |= {"AWS_SECRET_ACCESS_KEY": "of-the-operator", "GH_TOKEN": "of-the-operator"}
    environment["GIT_ALLOWED_PROTOCOLS"] = "http,file"
    environment["DEFAULT_AGENT"] = "reader"  # one call of the model for each mention
    environment["PROGRESS_AFTER_SECONDS"] = "600"  # the first message is the answer
    with ExitStack() as postgres:
        if suite.ON_POSTGRES:
            data = suite.DIRECTORY / "postgres-of-the-stack"
            url = postgres.enter_context(postgres_server(data, free_port()))
            environment["DATABASE_URL"] = url
        stack = Stack(directory, environment)
        postgres.push(stack.running)
        stack.start()
        yield stack
        stack.stop()


@pytest.fixture(scope="module")
def tour(new_stack: Stack) -> tuple[int, str]:
    """The exit status and the output of the tour, on this stack instead of one of its own."""
    tour = demo.Tour(new_stack.directory, new_stack.environment)
    printed, handler = io.StringIO(), signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(demo, "running_stack", lambda _: nullcontext(tour))
        status = demo.main()
    signal.signal(signal.SIGTERM, handler)
    return status, printed.getvalue()


@pytest.fixture(scope="module")
def stack(new_stack: Stack, tour: tuple[int, str]) -> Stack:
    """The stack after the tour, with credits for all tests."""
    void_grants = (
        "from billing.allowances.grants import void_grant\n"
        "from billing.models import CreditGrant\n"
        "for grant in CreditGrant.objects.all(): void_grant(grant)"
    )
    new_stack.manage("shell", "--verbosity", "0", "-c", void_grants)
    new_stack.set_limit(ENOUGH_CREDITS)
    return new_stack


def test_a_mention_ends_with_a_pull_request_and_a_reply_adds_a_commit(
    stack: Stack, tmp_path: Path
) -> None:
    if reason := Bubblewrap().why_missing():
        pytest.skip(f"no sandbox on this machine: {reason}")
    with serving_shop(tmp_path) as github:
        add_shop(stack, github)
        thread = stack.mention(f"in {SHOP}, add a --version flag, with small")
        said = stack.reply(thread)
        assert "Changed 1 file (+1 −0) on the branch `tollgate/" in said
        [pull] = github.pull_requests
        assert pull["html_url"] in said
        assert commits(github, pull["head"]["ref"]) == [f"in {SHOP}, add a --version flag"]
        stack.say(thread, "also document it")
        wait_until(lambda: len(stack.replies(thread)) == 3, 90, "the second answer")
        assert "I documented the flag" in stack.replies(thread)[2]
        assert len(commits(github, pull["head"]["ref"])) == 2
        assert len(github.pull_requests) == 1


@pytest.fixture(scope="module")
def token(stack: Stack) -> str:
    """A token for calling the gateway."""
    return stack.create_token()


def test_the_tour_sees_every_step(tour: tuple[int, str]) -> None:
    status, printed = tour
    steps = ["1. A mention that works", "2. Credits burning", "3. A denial in the thread"]
    steps += ["4. A top-up", "5. A failure of the provider"]
    steps += ["6. What an admin sees", "Every step was seen"]
    assert [step for step in steps if step in printed] == steps
    assert printed.count("Tollgate: [demo model]") == 4
    assert "Top up at" in printed
    assert status == 0


def test_a_mention_is_answered_in_its_thread_and_paid_for(stack: Stack) -> None:
    before = stack.quota()["usage"] or 0
    thread = stack.mention()
    assert stack.reply(thread).startswith("[demo model]")
    assert stack.reactions(thread)
    wait_until(lambda: (stack.quota()["usage"] or 0) > before, what="the usage")


def test_no_process_has_a_secret_that_it_does_not_need(stack: Stack) -> None:
    seen = 0
    for pid, command in stack.children().items():
        is_gateway, is_web = "-m gateway" in command, "granian" in command
        is_slack = "demo_slack" in command
        for environment in _environments(pid):
            assert b"of-the-operator" not in environment, command
            assert (b"GATEWAY_REDIS_URL=" in environment) == is_gateway, command
            assert (b"GATEWAY_SERVICE_TOKEN=" in environment) == (is_gateway or is_web), command
            assert (b"SLACK_SIGNING_SECRET=" in environment) == (is_slack or is_web), command
            seen += 1
    assert seen >= 12


def test_the_token_of_a_run_opens_its_run_and_product_only_and_until_its_end(stack: Stack) -> None:
    run, project = uuid.uuid4(), stack.project["project_id"]
    token = _run_token(stack, project, run)
    sibling = json.loads(
        stack.manage("create_project", "--organization", "Rivals", "--name", "Theirs", "--json")
    )
    gateway, app = stack.values["GATEWAY_URL"], stack.values["TOLLGATE_URL"]
    body = {"model": "claude-haiku-4-5", "max_tokens": 20, "messages": [QUESTION_OF_RUN]}
    claims = {"project_id": sibling["project_id"], "task_run_id": str(uuid.uuid4())}

    # Whatever the body claims, the token's own project pays, and its own run is named.
    status, _ = http(f"{gateway}/slack_app/v1/messages", body | {"metadata": claims}, token)
    assert status == 200
    wait_until(lambda: _usage_by_run(stack).get(str(run)), what="the usage of the run")

    for product in ("posthog_code", "slack_app_routing", "slack-posthog-code", "llm_gateway"):
        status, refusal = http(f"{gateway}/{product}/v1/messages", body, token)
        assert status == 403, (product, refusal)
        assert http(f"{gateway}/v1/usage/{product}", token=token)[0] == 403, product
    for other in (project, sibling["project_id"]):
        tasks = f"{app}/api/projects/{other}/coding_tasks/"
        wanted = {"repository": "acme/web-shop", "text": "hello"}
        assert http(tasks, wanted, token)[0] == 403
        assert http(f"{tasks}{run}/stop/", {}, token)[0] == 403
    assert http(f"{app}/api/projects/{project}/quota_limits/", token=token)[0] == 200
    limits_of_others = f"{app}/api/projects/{sibling['project_id']}/quota_limits/"
    assert http(limits_of_others, token=token)[0] == 404

    revoke = (
        f"from projects.authentication.credentials import revoke_run_tokens as f; f({str(run)!r})"
    )
    stack.manage("shell", "--verbosity", "0", "-c", revoke)

    def call() -> int:
        return http(f"{gateway}/slack_app/v1/messages", body, token)[0]

    wait_until(lambda: call() == 401, what="the refusal after the end")
    asked = stack.times_asked(QUESTION_OF_RUN["content"])
    assert [call() for _ in range(3)] == [401] * 3
    assert http(f"{app}/api/projects/{project}/quota_limits/", token=token)[0] == 401
    assert stack.times_asked(QUESTION_OF_RUN["content"]) == asked > 0


def _run_token(stack: Stack, project: int, run: uuid.UUID) -> str:
    mint = (
        "from datetime import timedelta\n"
        "from projects.authentication.credentials import mint_run_token\n"
        "from projects.models import Project\n"
        f"project = Project.objects.get(pk={project})\n"
        f"print(mint_run_token(project, {str(run)!r}, ['slack_app'], timedelta(minutes=5)))"
    )
    return stack.manage("shell", "--verbosity", "0", "-c", mint).split()[-1]


def _usage_by_run(stack: Stack) -> dict[str, float]:
    """Return the credits of each run of the stack's project."""
    url = f"{stack.values['TOLLGATE_URL']}/api/projects/{stack.project['project_id']}"
    status, answer = http(f"{url}/usage/?group_by=run", token=stack.project["personal_api_key"])
    assert status == 200
    return {result["run"]: float(result["credits"]) for result in answer["results"]}


def test_every_gate_obeys_a_block_by_hand_until_it_is_removed(stack: Stack, token: str) -> None:
    member = stack.project["api_token"]
    assert stack.call_gateway(token)[0] == 200
    stack.redis.zadd(BLOCKED, {member: time.time() + 3600})
    try:
        assert stack.quota()["limited"]
        thread = stack.mention()
        assert "Top up at" in stack.reply(thread)
        assert not stack.reactions(thread)
        wait_until(lambda: stack.call_gateway(token)[0] == 429, what="the gateway's refusal")
        _, refusal = stack.call_gateway(token)
        assert refusal["error"]["type"] == "rate_limit_error"
        assert refusal["error"]["reason"] == "billable_credits"
    finally:
        stack.redis.zrem(BLOCKED, member)
    assert not stack.quota()["limited"]
    wait_until(lambda: stack.call_gateway(token)[0] == 200, what="calls being let through")
    assert stack.reply(stack.mention()).startswith("[demo model]")


def test_a_limit_below_the_usage_refuses_until_it_is_raised(stack: Stack, token: str) -> None:
    assert stack.call_gateway(token)[0] == 200
    wait_until(lambda: stack.quota()["usage"], what="the usage")
    stack.set_limit("0")
    try:
        assert stack.quota()["reason"] == "limit_reached"
        assert stack.redis.zscore(BLOCKED, stack.project["api_token"])
        assert "Top up at" in stack.reply(stack.mention())
        wait_until(lambda: stack.call_gateway(token)[0] == 429, what="the gateway's refusal")
    finally:
        stack.set_limit(ENOUGH_CREDITS)
    assert not stack.quota()["limited"]
    wait_until(lambda: stack.call_gateway(token)[0] == 200, what="calls being let through")
    assert stack.reply(stack.mention()).startswith("[demo model]")


def test_mentions_with_credits_for_one_at_a_time_are_all_answered(stack: Stack) -> None:
    store = redis.Redis.from_url(stack.values["GATEWAY_REDIS_URL"], decode_responses=True)

    def held() -> int:
        accounts = [key for key in store.scan_iter("tollgate:account:*") if "ai_credits" in key]
        return sum(int(store.hget(account, "held") or 0) for account in accounts)

    stack.answer_slowly(2)
    first = stack.mention()
    wait_until(held, what="the hold of the first mention")
    hold = held()
    assert stack.reply(first).startswith("[demo model]")
    wait_until(lambda: not held() and stack.quota()["usage"], what="the settlement")
    refused = stack.refusals("billable_credits")
    stack.set_limit(f"{stack.quota()['usage'] + 1.9 * hold / 1_000_000:.6f}")
    try:
        stack.answer_slowly(2, times=4)
        threads = [stack.mention() for _ in range(4)]
        for thread in threads:
            assert stack.reply(thread, within=150).startswith("[demo model]")
        assert stack.refusals("billable_credits") > refused, "one at a time was enough"
    finally:
        stack.set_limit(ENOUGH_CREDITS)
        store.close()
    assert [len(stack.replies(thread)) for thread in threads] == [1] * 4


def test_a_run_waits_while_the_gateways_redis_is_frozen(stack: Stack) -> None:
    port = stack.values["GATEWAY_REDIS_URL"].rpartition(":")[2].partition("/")[0]
    [frozen] = [
        pid
        for pid, command in stack.children().items()
        if "gateway-redis" in command or f":{port}" in command
    ]
    refused = stack.refusals("store_unavailable")
    os.kill(frozen, signal.SIGSTOP)
    try:
        thread = stack.mention(f"{QUESTION} while its Redis is frozen")
        wait_until(lambda: stack.refusals("store_unavailable") > refused + 1, what="two refusals")
        assert stack.replies(thread) == []
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert stack.reply(thread).startswith("[demo model]")
    assert stack.times_asked("while its Redis is frozen") == 1


def test_a_killed_workers_answer_is_found_again_and_no_gate_misses_it(
    stack: Stack, token: str
) -> None:
    stack.answer_slowly(4)
    thread = stack.mention(f"{QUESTION} while the worker dies")
    wait_until(lambda: stack.times_asked("while the worker dies"), what="the model being asked")
    [worker] = [pid for pid, command in stack.children().items() if "run_worker" in command]
    os.kill(worker, signal.SIGKILL)
    wait_until_gone([worker])
    assert not stack.quota()["limited"]
    assert stack.call_gateway(token)[0] == 200
    assert stack.reply(thread, within=120).startswith("[demo model]")
    assert stack.times_asked("while the worker dies") == 1


def test_killing_the_gateway_fails_no_run(stack: Stack) -> None:
    stack.answer_slowly(4)
    thread = stack.mention(f"{QUESTION} while the gateway dies")
    wait_until(lambda: stack.times_asked("while the gateway dies"), what="the model being asked")
    [gateway] = [
        pid
        for pid, command in stack.children().items()
        if command.split()[-2:] == ["-m", "gateway"]
    ]
    os.kill(gateway, signal.SIGKILL)
    assert stack.reply(thread, within=120).startswith("[demo model]")
    assert len(stack.replies(thread)) == 1


def test_data_survives_a_killed_supervisor(stack: Stack) -> None:
    stack.reply(stack.mention())
    wait_until(lambda: stack.quota()["usage"], what="the usage")
    thread, project = stack.mention(), stack.project
    stack.kill()
    stack.start()
    assert stack.project == project
    assert stack.quota()["usage"]
    assert stack.reply(thread).startswith("[demo model]")


def test_killing_any_process_loses_no_mention_and_no_usage(stack: Stack) -> None:
    threads = []
    for pid, command in stack.children().items():
        if "devstack.supervision.warden" not in command:
            threads.append(_patiently(stack.mention))
            os.kill(pid, signal.SIGKILL)
    assert len(threads) == 12

    wait_until(
        lambda: all(_patiently(partial(stack.replies, thread)) for thread in threads),
        120,
        f"an answer to each mention in {stack.lines.text[-5000:]}",
    )
    said = {thread: stack.replies(thread) for thread in threads}
    wrong = [
        thread
        for thread, replies in said.items()
        if len(replies) != 1 or not replies[0].startswith("[demo model]")
    ]
    assert not wrong, "\n".join(_history(stack, thread) for thread in wrong)
    # If Slack dies before it acknowledges a post, the post is repeated and adds a mention.
    wait_until(
        lambda: len(stack.paid_runs()) == stack.answered_mentions() >= len(threads),
        120,
        f"usage of each answered mention, and an answer to each mention paid for: "
        f"{stack.paid_runs()}, {stack.answered_mentions()} answered",
    )


def _history(stack: Stack, thread: str) -> str:
    """Return what a thread shows, and the rows of its messages, as text."""
    shown = http(f"{stack.slack}/_control/messages?channel=C1&thread_ts={thread}")[1]
    list_notices = (
        "from workflows.models import Notice\n"
        f"for row in Notice.objects.filter(thread_ts={thread!r}).values(): print(row)"
    )
    rows = stack.manage("shell", "--verbosity", "0", "-c", list_notices)
    return f"{json.dumps(shown, indent=1)}\n{rows}"


def _environments(pid: int) -> list[bytes]:
    """Return the environments of a process and its descendants, without those that have ended."""
    environments = []
    for each in family(pid):
        with suppress(ProcessLookupError, FileNotFoundError):
            environments.append(Path(f"/proc/{each}/environ").read_bytes())
    return environments


def _patiently(call: Callable[[], Any]) -> Any:
    """Call until there is an answer, because the called program can be restarting."""
    answers: list[Any] = []

    def is_answered() -> bool:
        try:
            answers.append(call())
        except OSError:
            return False
        return True

    wait_until(is_answered, what=f"{call} being answered")
    return answers[0]

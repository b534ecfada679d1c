"""The Temporal worker: its workflows and activities, their clients, and how it starts and stops."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread
from typing import Any

import structlog
from django.conf import settings
from temporalio.client import Client
from temporalio.worker import Worker

from coding_tasks.agent_worker.connecting import connect_or_stop
from coding_tasks.reading.answering_agent import AnsweringAgent
from coding_tasks.reading.assignments import Agent
from coding_tasks.reading.checkouts import Checkouts, Cloner
from coding_tasks.runs import TIME_LIMIT
from coding_tasks.turns.agent_runs import AgentRuns
from workflows.activities.agents import AgentActivities
from workflows.activities.api_tasks import ApiTaskActivities
from workflows.activities.classifier import ModelClassifier
from workflows.activities.coding import CodingActivities
from workflows.activities.quota import QuotaActivities
from workflows.activities.quotes import QuoteActivities
from workflows.activities.repository import Classifier, RepositoryActivities
from workflows.activities.thread import ThreadActivities
from workflows.api_task import ApiTaskWorkflow
from workflows.mention import MentionWorkflow
from workflows.temporal.client import connect
from workflows.temporal.interceptors import ActivityEnvironment
from workflows.temporal.isolation import sandboxed_runner

log = structlog.get_logger(__name__)

ACTIVITIES = 20
"""How many runs of the agent and calls to Slack one process makes at the same time."""
LOCAL_ACTIVITIES = 10
GRACE = timedelta(seconds=3)
"""How long a stopping worker lets activities finish before it cancels them."""
LAST_GRACE = timedelta(seconds=2)
"""How long it then waits for them. Blocked ones are left to another worker's retry."""
TIDY_EVERY = timedelta(minutes=10)
"""The interval between removals of leftovers."""


@dataclass(frozen=True)
class Tools:
    """The clients that the worker passes to its activities."""

    agent: Agent
    checkouts: Checkouts
    classifier: Classifier


def configured_tools() -> Tools:
    """Return the tools that the settings name."""
    return Tools(
        AnsweringAgent(settings.AGENT_MODEL),
        Cloner(),
        ModelClassifier(settings.ROUTING_MODEL),
    )


def activities(tools: Tools) -> Sequence[Callable[..., Any]]:
    """Return every activity, bound to its clients."""
    quota = QuotaActivities()
    quotes = QuoteActivities()
    repository = RepositoryActivities(tools.classifier)
    coding = CodingActivities(tools.agent, tools.checkouts)
    agents = AgentActivities(AgentRuns.from_settings())
    thread = ThreadActivities()
    api_tasks = ApiTaskActivities()
    return [
        quota.check_quota,
        quota.check_credits,
        quotes.quote_run,
        quotes.conclude_quote,
        repository.choose_repository,
        repository.classify_repository,
        repository.offer_repositories,
        repository.close_picker,
        repository.give_up,
        coding.create_task,
        coding.forward_follow_up,
        coding.run_agent,
        coding.fail_run,
        coding.end_task,
        agents.prepare_run,
        agents.collect_run,
        agents.publish_run,
        thread.check_access,
        thread.deliver_notice,
        thread.close_mention,
        thread.break_down,
        api_tasks.next_run,
        api_tasks.give_up_task,
    ]


def build(client: Client, executor: ThreadPoolExecutor, tools: Tools, task_queue: str) -> Worker:
    """Return a worker; the executor needs `ACTIVITIES + LOCAL_ACTIVITIES` threads."""
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[MentionWorkflow, ApiTaskWorkflow],
        activities=activities(tools),
        activity_executor=executor,
        max_concurrent_activities=ACTIVITIES,
        max_concurrent_local_activities=LOCAL_ACTIVITIES,
        workflow_runner=sandboxed_runner(),
        interceptors=[ActivityEnvironment()],
        graceful_shutdown_timeout=GRACE,
        # By default the SDK holds heartbeats back for most of their timeout, which is too long on
        # a busy machine.
        max_heartbeat_throttle_interval=timedelta(seconds=2),
        # Workflows stuck to a killed worker wait this long for another one.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=5),
    )


async def run(stop: asyncio.Event, tools: Tools) -> bool:
    """Work until `stop` is set; return whether every activity ended in time.

    Waits until the Temporal server is up. Raises errors that the worker cannot recover from.
    """
    client = await connect_or_stop(connect, stop)
    if client is None:
        return True
    executor = ThreadPoolExecutor(ACTIVITIES + LOCAL_ACTIVITIES, thread_name_prefix="activity")
    worker = build(client, executor, tools, settings.TEMPORAL_TASK_QUEUE)
    working = asyncio.create_task(worker.run())
    stopping = asyncio.create_task(stop.wait())
    log.info("worker ready", task_queue=settings.TEMPORAL_TASK_QUEUE)
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        stopping.cancel()
        await working
    _, pending = await asyncio.wait(
        {asyncio.create_task(worker.shutdown())}, timeout=(GRACE + LAST_GRACE).total_seconds()
    )
    executor.shutdown(wait=False, cancel_futures=True)
    return not pending


def keep_tidy(tools: Tools) -> None:
    """Start a thread that regularly removes what killed workers left on the disk.

    A leftover that cannot be removed doesn't keep a worker from starting.
    """
    Thread(target=_tidy, args=(tools.checkouts,), name="leftovers", daemon=True).start()


def _tidy(checkouts: Checkouts) -> None:
    while True:
        try:
            if isinstance(checkouts, Cloner):
                checkouts.remove_leftovers(older_than=2 * TIME_LIMIT)
            AgentRuns.from_settings().tidy()
        except Exception:
            log.exception("leftovers on the disk cannot be removed; trying again later")
        time.sleep(TIDY_EVERY.total_seconds())

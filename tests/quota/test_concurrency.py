"""Gates, publishers and reconcilers at the same time, while Redis is wiped again and again."""

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count

import pytest
from django.db import connection

from projects import change_feed
from projects.change_feed import Change
from projects.models import Organization, Project
from quota.account_state import FAR_FUTURE
from quota.gate import check
from quota.models import QuotaState
from quota.published import limited_set, manual_blocks, marker
from quota.published.delta import RebuildLost
from quota.published.publication import publish
from quota.published.reconciler import Reconciler
from quota.resources import AI_CREDITS
from tests.conftest import wait_until
from tests.quota.world import LIMITS, Accounts

pytestmark = pytest.mark.django_db(transaction=True)

FLUSHES = 12


class Concurrently:
    """Repeats each function in its own thread until the block ends, and keeps their errors."""

    def __init__(self, *works: Callable[[], object]) -> None:
        self.failures: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[work]) for work in works]

    def _run(self, work: Callable[[], object]) -> None:
        try:
            while not self._stop.is_set():
                work()
        except BaseException as error:
            self.failures.append(error)
        finally:
            connection.close()

    def __enter__(self) -> "Concurrently":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


@pytest.mark.case("Q13")
def test_nobody_over_quota_is_admitted_while_redis_is_wiped(
    accounts, project, stranger, redis_client
):
    accounts.limit()
    busy = Accounts(Organization.objects.create(name="Busy"))
    Project.objects.create(organization=busy.organization, name="Busy")
    reconcilers = Reconciler(), Reconciler()
    wrong: list[object] = []
    sources: set[str] = set()

    def ask() -> None:
        for one, limited in ((project, True), (stranger, False)):
            verdict = check(one)
            sources.add(verdict.source)
            if verdict.limited is not limited:
                wrong.append(verdict)

    def publish_this_and_that() -> None:
        busy.limit()
        busy.allow()

    def reconcile(reconciler: Reconciler) -> None:
        with suppress(RebuildLost):  # wiped while rebuilding: the next tick starts over
            reconciler.tick()

    with Concurrently(
        ask, ask, publish_this_and_that, *(partial(reconcile, one) for one in reconcilers)
    ) as together:
        wait_until(lambda: together.failures or "redis" in sources, what="Redis being trusted")
        for flush in count(1):
            redis_client.flushall()
            wait_until(lambda: together.failures or marker.current(), what="the marker")
            if together.failures or (flush >= FLUSHES and "database" in sources):
                break
    assert together.failures == []
    assert wrong == []
    assert sources == {"redis", "database"}


def test_publishers_that_race_leave_the_newest_decision_in_both_stores(
    accounts, project, redis_client
):
    states = [accounts.limited_state() if n % 2 else accounts.state() for n in range(60)]
    newest = states[-1]
    random.Random(5).shuffle(states)
    lock = threading.Lock()

    def publish_one() -> None:
        with lock:
            state = states.pop() if states else None
        if state is not None:
            publish([state])

    with Concurrently(*[publish_one] * 4) as together:
        wait_until(lambda: together.failures or not states, what="the last publication")
    assert together.failures == []
    assert QuotaState.objects.get(resource=AI_CREDITS).published == newest
    assert newest.limited
    assert redis_client.zscore(LIMITS, project.api_token) == newest.limited_until
    reading = limited_set.read(project.organization_id, project.api_token)
    assert reading.resources[AI_CREDITS].state == newest


def test_processes_that_see_a_block_set_by_hand_at_once_record_it_once(project, monkeypatch):
    looks, scores = threading.local(), manual_blocks._scores
    before, within = threading.Barrier(4), threading.Barrier(4)

    def look(rows):
        found = scores(rows)
        if not getattr(looks, "first", None):
            looks.first = True
            before.wait(60)  # nobody has recorded it yet
        else:
            with suppress(threading.BrokenBarrierError):
                within.wait(0.5)  # all of them, unless one keeps the others waiting
        return found

    monkeypatch.setattr(manual_blocks, "_scores", look)
    seen = {(AI_CREDITS, project.api_token): float(FAR_FUTURE)}
    change_feed.cursor()  # making its row would keep the others waiting, too
    failures: list[BaseException] = []

    def record() -> None:
        try:
            manual_blocks.record_seen(seen)
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    started, threads = Change.objects.count(), [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert failures == []
    assert Change.objects.count() == started + 1

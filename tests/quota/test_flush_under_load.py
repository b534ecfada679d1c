"""Redis is wiped again and again while gates ask, publishers publish and a reconciler repairs."""

import threading

import pytest
from django.db import connection

from projects.models import Organization, Project
from quota import marker
from quota.gate import check
from quota.reconciler import Reconciler
from tests.conftest import wait_until
from tests.quota.world import Accounts

pytestmark = pytest.mark.django_db(transaction=True)

FLUSHES = 12


def test_nobody_over_quota_is_admitted_while_redis_is_wiped(
    accounts, project, stranger, redis_client
):
    accounts.limit()
    busy = Project.objects.create(
        organization=Organization.objects.create(name="Busy"), name="Busy"
    )
    stop = threading.Event()
    wrong: list[object] = []
    sources: set[str] = set()
    failures: list[BaseException] = []

    def until_stopped(work) -> threading.Thread:
        def run() -> None:
            try:
                while not stop.is_set():
                    work()
            except BaseException as error:
                failures.append(error)
            finally:
                connection.close()

        return threading.Thread(target=run)

    def ask() -> None:
        for one, limited in ((project, True), (stranger, False)):
            verdict = check(one)
            sources.add(verdict.source)
            if verdict.limited is not limited:
                wrong.append(verdict)

    busy_accounts = Accounts(busy.organization)

    def publish() -> None:
        busy_accounts.limit()
        busy_accounts.allow()

    threads = [until_stopped(work) for work in (ask, ask, publish, Reconciler().tick)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(FLUSHES):
            wait_until(lambda: failures or marker.current(), timeout=5, what="the marker")
            redis_client.flushall()
        wait_until(lambda: failures or marker.current(), timeout=5, what="the last marker")
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert failures == []
    assert wrong == []
    assert sources == {"redis", "database"}

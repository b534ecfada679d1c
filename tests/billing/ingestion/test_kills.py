"""If the process is killed at any moment and the batch is sent again, it is booked exactly once."""

import json
import os
import signal
import subprocess
import sys

import pytest
from django.db import connection

from billing.allowances.limits import set_limit
from billing.models import Account, UsageEvent
from billing.organizations import create_organization, create_project
from billing.verification.projections import differences
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, account_of, book, published, usage_event, used

pytestmark = pytest.mark.django_db(transaction=True)
SURVIVES = {
    "before-insert": False,
    "before-commit": False,
    "after-commit": True,
    "before-redis": True,
    "after-redis": True,
}


def ingest(*words):
    """Book batches in processes that are killed, and return how each ended."""
    settings = connection.settings_dict
    url = (
        f"sqlite:///{settings['NAME']}"
        if connection.vendor == "sqlite"
        else f"postgres://postgres@127.0.0.1:{settings['PORT']}/{settings['NAME']}"
    )
    environment = os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "config.settings"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.billing.ingest", *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_batch_is_booked_once_wherever_its_process_was_killed(redis_client, tmp_path):
    worlds = {}
    for moment in SURVIVES:
        project = create_project(create_organization(moment), "Main")
        set_limit(project.organization, AI_CREDITS, 60 * CREDIT)
        worlds[moment] = project, [usage_event(project) for _ in range(5)]
        (tmp_path / moment).write_text(json.dumps(worlds[moment][1]))

    ended = ingest(*(word for moment in SURVIVES for word in (tmp_path / moment, moment)))

    assert ended == [-signal.SIGKILL] * len(SURVIVES)
    for moment, (project, events) in worlds.items():
        survived = SURVIVES[moment]
        booked = UsageEvent.objects.filter(account=account_of(project.organization))
        assert booked.count() == (5 if survived else 0), moment
        assert published(project.organization).limited == survived

        statuses = [result.status for result in book(*events)]

        assert statuses == (["duplicate"] if survived else ["accepted"]) * 5
        assert used(project.organization) == 60 * CREDIT
        assert published(project.organization).limited
    for account in Account.objects.all():
        assert list(differences(account)) == []

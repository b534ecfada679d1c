"""The ingesting process is killed at any moment: sent again, everything is booked exactly once."""

import json
import os
import signal
import subprocess
import sys

import pytest
from django.db import connection

from billing.accounts import create_organization, create_project
from billing.limits import set_limit
from billing.models import Account, UsageEvent
from billing.verification import differences
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, book, published, usage_event, used

pytestmark = pytest.mark.django_db(transaction=True)


def ingest(batch, moment):
    """Book a batch in a process of its own that dies at the moment."""
    settings = connection.settings_dict
    url = (
        f"sqlite:///{settings['NAME']}"
        if connection.vendor == "sqlite"
        else f"postgres://postgres@127.0.0.1:{settings['PORT']}/{settings['NAME']}"
    )
    environment = os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "config.settings"}
    return subprocess.run(
        [sys.executable, "-m", "tests.billing.ingest", str(batch), moment],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("moment", "survives"),
    [
        ("before-insert", False),
        ("before-commit", False),
        ("after-commit", True),
        ("before-redis", True),
        ("after-redis", True),
    ],
)
def test_a_batch_is_booked_once_wherever_its_process_was_killed(
    redis_client, tmp_path, moment, survives
):
    project = create_project(create_organization("Acme"), "Main")
    set_limit(project.organization, AI_CREDITS, 60 * CREDIT)
    events = [usage_event(project) for _ in range(5)]
    batch = tmp_path / "batch.json"
    batch.write_text(json.dumps(events))

    killed = ingest(batch, moment)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert UsageEvent.objects.count() == (5 if survives else 0)
    assert published(project.organization).limited == survives

    statuses = [result.status for result in book(*events)]

    assert statuses == (["duplicate"] if survives else ["accepted"]) * 5
    assert used(project.organization) == 60 * CREDIT
    assert published(project.organization).limited
    for account in Account.objects.all():
        assert list(differences(account)) == []

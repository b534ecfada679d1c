"""Hints to Celery, after the commit, that an account has more credits than before."""

import base64
import json

import pytest

from projects.models import Organization
from quota.published import credit_gains
from quota.published.publication import publish
from quota.resources import AI_CREDITS, MICRO
from tests.quota.world import Accounts, run_commit_hooks
from workflows.tasks import wake_paused_runs

pytestmark = pytest.mark.django_db


def hints(redis_client) -> list[list[str]]:
    """Return the arguments of the hints given so far, and forget them."""
    waiting = [json.loads(each) for each in redis_client.lrange("celery", 0, -1)]
    redis_client.delete("celery")
    return [
        json.loads(base64.b64decode(each["body"]))[0]
        for each in waiting
        if each["headers"]["task"] == wake_paused_runs.name
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"remaining_micro": 1}, {"remaining_micro": 100 * MICRO}),
        ({"remaining_micro": 1}, {"remaining_micro": None, "limit_micro": None}),
        ({"caps_version": 1}, {"caps_version": 2}),
    ],
    ids=["more is left", "the limit is removed", "a cap changed"],
)
def test_more_remaining_credits_give_a_hint(accounts: Accounts, redis_client, before, after):
    accounts.allow(**before)
    hints(redis_client)
    accounts.allow(**after)
    assert hints(redis_client) == [[str(accounts.organization.pk)]]


def test_a_lifted_limit_gives_a_hint(accounts: Accounts, redis_client):
    accounts.limit(remaining_micro=None)
    hints(redis_client)
    accounts.allow(remaining_micro=None)
    assert hints(redis_client) == [[str(accounts.organization.pk)]]


def test_the_function_that_was_registered_last_gets_the_hints(accounts, monkeypatch):
    monkeypatch.setattr(credit_gains, "_registered", [])
    hinted = []
    for name in ("first", "last"):
        credit_gains.register(lambda *ids, name=name: hinted.append((name, ids)))
    accounts.limit()
    accounts.allow()
    assert hinted == [("last", (str(accounts.organization.pk),))]


def test_spending_and_a_new_limit_give_no_hint(accounts: Accounts, redis_client):
    hints(redis_client)
    accounts.allow(remaining_micro=700 * MICRO)
    accounts.allow(remaining_micro=700 * MICRO)
    accounts.limit()
    assert hints(redis_client) == []
    accounts.allow(remaining_micro=None, limit_micro=None)
    hints(redis_client)
    accounts.allow()
    assert hints(redis_client) == []


def test_a_rolled_back_change_gives_no_hint(accounts: Accounts, redis_client):
    accounts.limit()
    hints(redis_client)
    publish([accounts.state(AI_CREDITS)])  # this test's transaction never commits
    assert hints(redis_client) == []


@pytest.mark.parametrize("number", [20, 21])
def test_many_gains_at_once_give_one_hint_without_names(redis_client, organization, number):
    everybody = [Accounts(Organization.objects.create(name=f"Acme {n}")) for n in range(number)]
    with run_commit_hooks():
        publish(each.limited_state() for each in everybody)
    hints(redis_client)
    with run_commit_hooks():
        publish(each.state() for each in everybody)
    names = sorted(str(each.organization.pk) for each in everybody)
    assert hints(redis_client) == [names if number == 20 else []]

"""`GET /api/quota_changes/`: the change feed, as a gateway reads it."""

import threading
import uuid

import pytest
from django.db import OperationalError, close_old_connections, connection, transaction
from django.utils import timezone

from projects import change_feed
from projects.authentication import credentials
from projects.change_feed import Change
from projects.models import Project
from projects.tokens import sha256
from quota.published import changes, retention
from quota.published.publication import publish
from quota.resources import AI_CREDITS
from tests.quota.world import run_commit_hooks

SERVICE = {"authorization": "Bearer service-token-of-the-test-suite"}

pytestmark = pytest.mark.django_db


@pytest.fixture
def follow(client):
    """Return a function that gets the feed's answer for a cursor."""

    def _follow(since=None, **query):
        if since is not None:
            query["since"] = since
        response = client.get("/api/quota_changes/", query, headers=SERVICE)
        assert response.status_code == 200, response.content
        return response.json()

    return _follow


def revoke(*credentials_of: str) -> int:
    with transaction.atomic():
        return change_feed.append(
            Change.Kind.CREDENTIAL_REVOKED, [{"sha256": name} for name in credentials_of]
        )


def test_a_new_reader_gets_the_current_version(follow, accounts):
    begun = follow()
    assert begun["reset"] is True
    assert (begun["changes"], begun["revoked"]) == ([], [])
    assert follow(begun["version"], feed=begun["feed"]) == begun | {"reset": False}


def test_reached_and_lifted_limits_are_reported_for_each_project(
    follow, accounts, project, stranger
):
    start = follow()["version"]
    with run_commit_hooks():
        publish([accounts.limited_state()])
    answer = follow(start)
    assert answer["changes"] == [
        {
            "account": f"{project.organization_id}:ai_credits",
            "organization_id": str(project.organization_id),
            "project_id": project.pk,
            "resource": AI_CREDITS,
            "version": start + 1,
            "limited": True,
        }
    ]
    assert (answer["version"], answer["reset"]) == (start + 1, False)
    with run_commit_hooks():
        publish([accounts.state()])
    assert [change["limited"] for change in follow(start + 1)["changes"]] == [False]


def test_only_the_newest_change_of_a_project_is_reported(follow, accounts):
    start = follow()["version"]
    for _ in range(3):
        accounts.limit()
        accounts.allow()
    answer = follow(start)
    assert [change["limited"] for change in answer["changes"]] == [False, False]
    assert answer["version"] == start + 12


def test_a_revoked_credential_is_reported_by_its_digest(follow, project):
    start = follow()["version"]
    row, key = credentials.issue_personal_api_key(project.organization, "poller", ["project:read"])
    credentials.revoke_personal_api_key(row)
    assert follow(start)["revoked"] == [sha256(key)]


def test_a_reader_catches_up_page_by_page_after_a_long_absence(follow, accounts, monkeypatch):
    monkeypatch.setattr(changes, "PAGE", 2)
    cursor = follow()["version"]
    revoke("a", "b", "c", "d", "e")
    seen = []
    while True:
        answer = follow(cursor)
        if answer["version"] == cursor:
            break
        cursor = answer["version"]
        seen += answer["revoked"]
    assert seen == ["a", "b", "c", "d", "e"]


# --- unknown cursors -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "since",
    [
        *("", "-1", "abc", "1e3", "²", "9" * 30, "9" * 5000, "1.0", "+1", "٣", " 1", "1 ", "1\n"),
        *("1_000", "0x1", "01", "１", "1\0", "null", "9223372036854775808"),
    ],
)
def test_a_cursor_that_is_not_a_whole_number_is_refused(client, accounts, since):
    answer = client.get("/api/quota_changes/", {"since": since}, headers=SERVICE)
    assert (answer.status_code, list(answer.json())) == (400, ["since"])


@pytest.mark.parametrize("name", ["since", "feed"])
def test_a_parameter_that_is_repeated_is_refused(client, accounts, name):
    answer = client.get("/api/quota_changes/", {name: ["1", "1"]}, headers=SERVICE)
    assert answer.status_code == 400


@pytest.mark.parametrize("since", ["1000000", "9223372036854775807"])
def test_a_cursor_that_was_never_given_out_is_reset(follow, accounts, since):
    answer = follow(since)
    assert (answer["reset"], answer["version"]) == (True, follow()["version"])


def test_a_cursor_before_the_first_change_is_reset(accounts):
    assert changes.changes_since(-1, None).is_reset
    assert not changes.changes_since(0, None).is_reset


def test_a_cursor_of_another_feed_is_reset(follow, accounts):
    assert follow(0, feed=str(uuid.uuid4()))["reset"] is True
    assert follow(0, feed=follow()["feed"])["reset"] is False


def test_a_cursor_older_than_the_kept_changes_is_reset(follow, accounts):
    start = follow()["version"]
    revoke("a")
    retention.prune(timezone.now() + retention.CHANGES_KEPT)
    assert follow(start)["reset"] is True
    kept = follow()["version"]
    assert follow(kept)["reset"] is False
    revoke("b")
    assert follow(start)["reset"] is True
    assert follow(kept)["revoked"] == ["b"]


# --- who may read it -----------------------------------------------------------------------------
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer not-the-service-token"}])
def test_only_the_service_is_answered(client, accounts, headers):
    assert client.get("/api/quota_changes/", headers=headers).status_code == 401


def test_a_project_credential_is_refused(client, project):
    _, key = credentials.issue_personal_api_key(project.organization, "x", ["llm_gateway:read"])
    response = client.get("/api/quota_changes/", headers={"authorization": f"Bearer {key}"})
    assert response.status_code == 401


def test_other_methods_are_not_allowed(client, accounts):
    for method in ("post", "put", "patch", "delete"):
        response = getattr(client, method)("/api/quota_changes/", headers=SERVICE)
        assert response.status_code == 405


def test_without_the_database_the_answer_is_503_with_retry_after(client, accounts, monkeypatch):
    def fail(**_options):
        raise OperationalError("the database is down")

    monkeypatch.setattr(change_feed, "cursor", fail)
    response = client.get("/api/quota_changes/", {"since": 0}, headers=SERVICE)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0


# --- the order of commits ------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_changes_are_read_in_commit_order_and_none_is_skipped(follow, redis_client):
    """One writer appends and commits late; a second one starts later and finishes earlier."""
    start = follow()["version"]
    appended, may_commit, second_done = (threading.Event() for _ in range(3))
    read: list[str] = []

    def first() -> None:
        with transaction.atomic():
            revoke("first")
            appended.set()
            assert may_commit.wait(60)
        connection.close()

    def second() -> None:
        assert appended.wait(60)
        revoke("second")
        second_done.set()
        connection.close()

    writers = [threading.Thread(target=first), threading.Thread(target=second)]
    for writer in writers:
        writer.start()
    assert appended.wait(60)
    answer = follow(start)
    assert not second_done.wait(0.3), "the second writer did not wait for the first one's commit"
    cursor, read = answer["version"], read + answer["revoked"]
    may_commit.set()
    for writer in writers:
        writer.join(60)
    answer = follow(cursor)
    assert read + answer["revoked"] == ["first", "second"]


@pytest.mark.django_db(transaction=True)
def test_a_reader_beside_many_writers_misses_nothing(follow, redis_client):
    cursor = follow()["version"]
    writers, rounds = 4, 12

    def write(name: int) -> None:
        for number in range(rounds):
            revoke(f"{name}.{number}")
        connection.close()

    threads = [threading.Thread(target=write, args=[name]) for name in range(writers)]
    for thread in threads:
        thread.start()
    seen: list[str] = []
    while len(seen) < writers * rounds:
        alive = any(thread.is_alive() for thread in threads)
        answer = follow(cursor)
        assert answer["reset"] is False
        cursor, seen = answer["version"], seen + answer["revoked"]
        assert alive or answer["revoked"] or len(seen) == writers * rounds
    for thread in threads:
        thread.join(60)
    assert sorted(seen) == sorted(f"{w}.{n}" for w in range(writers) for n in range(rounds))
    close_old_connections()


def test_an_accounts_change_does_not_name_another_organizations_project(follow, accounts, stranger):
    start = follow()["version"]
    accounts.limit()
    assert stranger.pk not in {change["project_id"] for change in follow(start)["changes"]}
    assert Project.objects.count() == 2

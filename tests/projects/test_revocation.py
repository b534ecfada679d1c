"""Every way to end a credential is in the change feed, in the transaction that ends it."""

import threading
import uuid
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import ProtectedError
from django.db.transaction import TransactionManagementError
from django.utils import timezone
from oauth2_provider.models import revoke_access_token

from projects import change_feed, revocation
from projects.authentication import credentials
from projects.models import (
    Change,
    ChangeCursor,
    Membership,
    OAuthAccessToken,
    OAuthApplication,
    Organization,
    PersonalAPIKey,
    User,
)
from projects.tasks import clear_expired_credentials
from projects.tokens import sha256
from tests.conftest import wait_until

HOUR = timedelta(hours=1)


def announced() -> list[str]:
    """Return the revoked credentials in the change feed, oldest first."""
    return [change.payload["sha256"] for change in Change.objects.filter(kind="credential_revoked")]


@pytest.fixture
def run_token(project):
    return credentials.mint_run_token(project, uuid.uuid4(), ["slack_app"], HOUR)


@pytest.fixture
def members_key(organization, project, member) -> str:
    _, plain = credentials.issue_personal_api_key(
        organization, "ada's", ["project:read"], [project], member
    )
    return plain


def test_only_the_hash_of_a_credential_is_stored(organization, project, run_token):
    key, plain = credentials.issue_personal_api_key(organization, "k", ["project:read"])
    assert key.sha256 == sha256(plain)
    token = OAuthAccessToken.objects.get()
    assert (token.token, token.token_checksum) == ("", sha256(run_token))
    with connection.cursor() as cursor:
        for table in ("projects_personalapikey", "projects_oauthaccesstoken"):
            cursor.execute(f"SELECT * FROM {table}")
            stored = str(cursor.fetchall())
            assert plain not in stored
            assert run_token not in stored


def test_a_revoked_key_is_announced_once(organization):
    key, plain = credentials.issue_personal_api_key(organization, "k", ["project:read"])
    credentials.revoke_personal_api_key(key)
    assert key.revoked_at is not None
    credentials.revoke_personal_api_key(key)
    assert announced() == [sha256(plain)]


def test_the_tokens_of_a_run_are_revoked_together_and_no_others(project):
    run, other = uuid.uuid4(), uuid.uuid4()
    tokens = [credentials.mint_run_token(project, run, ["slack_app"], HOUR) for _ in range(2)]
    credentials.mint_run_token(project, other, ["slack_app"], HOUR)
    credentials.revoke_run_tokens(run)
    credentials.revoke_run_tokens(uuid.uuid4())
    assert sorted(announced()) == sorted(sha256(token) for token in tokens)
    assert OAuthAccessToken.objects.get().task_run_id == other


@pytest.mark.parametrize(
    "delete",
    [
        lambda: OAuthAccessToken.objects.get().delete(),
        lambda: OAuthAccessToken.objects.get().revoke(),
        lambda: OAuthAccessToken.objects.all().delete(),
        lambda: revoke_access_token(OAuthAccessToken.objects.get()),
    ],
    ids=["one row", "the toolkit's revoke", "a query set", "the toolkit's shared path"],
)
def test_a_deleted_token_is_announced_however_it_was_deleted(run_token, delete):
    delete()
    assert announced() == [sha256(run_token)]


@pytest.mark.parametrize(
    "delete", [lambda key: key.delete(), lambda key: type(key).objects.all().delete()]
)
def test_a_deleted_key_is_announced(organization, delete):
    key, plain = credentials.issue_personal_api_key(organization, "k", ["project:read"])
    delete(key)
    assert announced() == [sha256(plain)]


def test_clearing_expired_credentials_announces_nothing_and_keeps_the_rest(project):
    credentials.mint_product_token(project, "slack_app_routing", -HOUR)
    live = credentials.mint_product_token(project, "slack_app_routing", HOUR)
    clear_expired_credentials()
    assert OAuthAccessToken.objects.get().token_checksum == sha256(live)
    assert announced() == []


def test_a_revocation_that_is_rolled_back_is_not_announced(run_token):
    with transaction.atomic():
        OAuthAccessToken.objects.all().delete()
        transaction.set_rollback(True)
    assert announced() == []
    assert OAuthAccessToken.objects.exists()


def test_deactivating_a_user_announces_their_credentials(member, members_key):
    member.is_active = False
    member.save()
    assert announced() == [sha256(members_key)]


@pytest.mark.parametrize(
    "end", [lambda m: m.delete(), lambda m: Membership.objects.all().delete()], ids=["row", "set"]
)
def test_ending_a_membership_announces_only_that_organizations_credentials(
    member, members_key, end
):
    elsewhere = Organization.objects.create(name="Elsewhere")
    credentials.issue_personal_api_key(elsewhere, "k", ["project:read"], user=member)
    end(Membership.objects.get())
    assert announced() == [sha256(members_key)]


def test_moving_a_membership_to_another_user_announces_the_old_users_credentials(
    member, members_key
):
    membership = Membership.objects.get()
    membership.role = Membership.Role.ADMIN
    membership.save()
    assert announced() == []
    membership.user = User.objects.create_user("bob")
    membership.save()
    assert announced() == [sha256(members_key)]


def test_deleting_something_else_never_deletes_a_credential(
    organization, project, member, members_key
):
    credentials.mint_product_token(project, "slack_app_routing", HOUR)
    application = OAuthApplication.objects.create(client_type="public")
    OAuthAccessToken.objects.update(application=application)
    for owner in (member, application):
        with pytest.raises(ProtectedError):
            owner.delete()


def test_a_key_covers_projects_of_its_own_organization_only(organization, foreign_project):
    with pytest.raises(ValueError, match="its own projects only"):
        credentials.issue_personal_api_key(organization, "k", ["project:read"], [foreign_project])
    with pytest.raises(ValueError, match="unknown scope: project:write"):
        credentials.issue_personal_api_key(organization, "k", ["project:read", "project:write"])
    assert not PersonalAPIKey.objects.exists()


def test_versions_follow_one_another_without_gaps(db):
    with transaction.atomic():
        assert change_feed.append("quota", [{"a": 1}, {"a": 2}]) == 2
    with transaction.atomic():
        assert change_feed.append("quota", [{"a": 3}]) == 3
        assert change_feed.append("quota", []) == 3
    assert list(Change.objects.values_list("version", flat=True)) == [1, 2, 3]


@pytest.mark.django_db(transaction=True)
def test_appending_outside_a_transaction_is_refused():
    with pytest.raises(TransactionManagementError):
        change_feed.append("quota", [{}])


@pytest.mark.django_db(transaction=True)
def test_two_at_once_make_one_cursor_where_there_was_none(redis_client):
    """The row is missing in a new database, and in one that a test emptied."""
    assert not ChangeCursor.objects.exists()
    failures: list[Exception] = []

    def announce() -> None:
        try:
            revocation.announce([sha256("the second")])
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    second = threading.Thread(target=announce)
    with transaction.atomic():
        revocation.announce([sha256("the first")])
        second.start()
        if connection.vendor == "postgresql":  # SQLite allows only one writer
            wait_until(_somebody_waits_for_a_lock, what="the second being kept waiting")
    second.join(60)
    assert failures == []
    assert announced() == [sha256("the first"), sha256("the second")]
    assert ChangeCursor.objects.get().version == 2


def _somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
        return cursor.fetchone() is not None


def test_expired_credentials_of_a_user_are_not_announced(project, member):
    credentials.mint_product_token(project, "slack_app_routing", HOUR)
    OAuthAccessToken.objects.update(user=member, expires=timezone.now())
    assert member.live_credentials() == []

"""Who is over the limit: decide about accounts and publish what was decided.

Called with the accounts locked, by whatever changed them and by the sweep. An account whose state
did not change in any way that others are told of keeps its version and is not published again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from billing.account_locks import lock_organization
from billing.allowances import cap_usage
from billing.decisions import decision_records
from billing.decisions.assessment import assess
from billing.decisions.balances import Books, load_books
from billing.decisions.running_totals import recut
from billing.decisions.timeline import load_timelines
from billing.models import Account, DecisionRecord, ThresholdNotice
from quota.models import QuotaState
from quota.published.publication import publish

_STORED = [
    *("version", "booked", "state", "reason", "exhausted_since", "grace_began_at"),
    *("announced_percent", "caps_version", "period_start", "decide_again_at", "published_digest"),
]


def enforce(
    accounts: Sequence[Account],
    now: datetime,
    *,
    books: Mapping[int, Books] | None = None,
    anew: bool = False,
) -> None:
    """Decide about accounts that the caller has locked, store and publish what changed.

    Belongs last into the caller's transaction. `books` are the accounts' if the caller has them at
    hand. With `anew`, publishes even what did not change. Sets the decided fields of the accounts.
    """
    if books is None:
        books = load_books(account.pk for account in accounts)
    for account in accounts:
        _begin_period(account, books[account.pk], now)
    changed = []
    records: list[DecisionRecord] = []
    notices: list[ThresholdNotice] = []
    states = []
    if anew:
        _outrun(accounts)
    for found in assess(accounts, books, now):
        account, columns, digest = found.account, found.columns, found.digest
        publishes = anew or digest != account.published_digest
        if not publishes and found.is_stored:
            continue
        changed.append(account)
        notices += decision_records.notices(found)
        if publishes:
            account.version += 1
            if (account.state, account.reason) != (columns["state"], columns["reason"]):
                records.append(decision_records.record(found))
            records += decision_records.cap_records(found)
            account.published_digest = digest
            states.append(replace(found.state, version=account.version))
        for name, value in columns.items():
            setattr(account, name, value)
    if not changed:
        return
    Account.objects.bulk_create(  # an upsert: updating that many columns of many rows is slower
        changed, update_conflicts=True, unique_fields=["id"], update_fields=_STORED
    )
    DecisionRecord.objects.bulk_create(records)
    ThresholdNotice.objects.bulk_create(notices, ignore_conflicts=True)
    publish(states, rewrite=anew)


def settle(account: Account, now: datetime) -> None:
    """Cut the totals of a locked account to limits or grants that just changed, and enforce."""
    recut(account, load_timelines([account.pk])[account.pk])
    enforce([account], now)


def decide_account(organization_id: UUID, resource: str) -> None:
    """Decide about one account now and publish: quota asks when a state has stopped holding."""
    with transaction.atomic():
        enforce(lock_organization(organization_id, resource), timezone.now())


def _outrun(accounts: Iterable[Account]) -> None:
    """Let the next version be newer than any that is published, whoever wrote that one."""
    mine = {(account.organization_id, account.resource): account for account in accounts}
    rows = QuotaState.objects.filter(organization__in={organization for organization, _ in mine})
    for organization, resource, version in rows.values_list(
        "organization_id", "resource", "version"
    ):
        if account := mine.get((organization, resource)):
            account.version = max(account.version, version)


def _begin_period(account: Account, books: Books, now: datetime) -> None:
    """Let the caps of a locked account begin anew with its period."""
    if account.caps_version:
        period = books.timeline.period_at(now)
        if account.period_start != period.start:
            cap_usage.recount(account, period)
            account.caps_version += 1

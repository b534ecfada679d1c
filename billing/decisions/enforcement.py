"""Decide about accounts, store the decisions and publish them.

The sweep and everything that changes an account call `enforce`, with the accounts locked. If the
published state would not change, the account keeps its version and is not published again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from billing.account_locks import lock_organization
from billing.decisions import cap_usage, decision_records
from billing.decisions.assessment import assess
from billing.decisions.decision_inputs import DecisionInputs, load_inputs
from billing.decisions.running_totals import recut_totals
from billing.decisions.timeline import load_timelines
from billing.models import Account, DecisionRecord, ThresholdNotice
from quota.models import QuotaState
from quota.published.publication import publish

_STORED = [
    "version",
    "booked",
    "state",
    "reason",
    "exhausted_since",
    "grace_began_at",
    "announced_percent",
    "announced_of_micro",
    "warning_round",
    "caps_version",
    "period_start",
    "decide_again_at",
    "published_digest",
]


def enforce(
    accounts: Sequence[Account],
    now: datetime,
    *,
    inputs: Mapping[int, DecisionInputs] | None = None,
    republish: bool = False,
) -> None:
    """Decide about accounts that the caller has locked, and store and publish what changed.

    Call it last in the transaction. Pass `inputs` if they are already loaded. With `republish`,
    states that did not change are published too. Sets the decided fields of the accounts.
    """
    if inputs is None:
        inputs = load_inputs(account.pk for account in accounts)
    for account in accounts:
        _begin_period(account, inputs[account.pk], now)
    changed = []
    records: list[DecisionRecord] = []
    notices: list[ThresholdNotice] = []
    states = []
    if republish:
        _advance_past_published(accounts)
    for assessment in assess(accounts, inputs, now):
        account, columns, digest = assessment.account, assessment.columns, assessment.digest
        publishes = republish or digest != account.published_digest
        if not publishes and assessment.is_stored:
            continue
        changed.append(account)
        notices += decision_records.notices(assessment)
        if publishes:
            account.version += 1
            if (account.state, account.reason) != (columns["state"], columns["reason"]):
                records.append(decision_records.record(assessment))
            records += decision_records.cap_records(assessment)
            account.published_digest = digest
            states.append(replace(assessment.state, version=account.version))
        for name, value in columns.items():
            setattr(account, name, value)
    if not changed:
        return
    Account.objects.bulk_create(  # an upsert, because bulk_update is slower for so many columns
        changed, update_conflicts=True, unique_fields=["id"], update_fields=_STORED
    )
    DecisionRecord.objects.bulk_create(records)
    ThresholdNotice.objects.bulk_create(notices, ignore_conflicts=True)
    publish(states, rewrite=republish)


def recut_and_enforce(account: Account, now: datetime) -> None:
    """Fit the totals of a locked account to its changed limits or grants, then decide."""
    recut_totals(account, load_timelines([account.pk])[account.pk])
    enforce([account], now)


def decide_account(organization_id: UUID, resource: str) -> None:
    """Decide about one account now and publish. Quota calls this when a state is out of date."""
    with transaction.atomic():
        enforce(lock_organization(organization_id, resource), timezone.now())


def _advance_past_published(accounts: Iterable[Account]) -> None:
    """Raise versions to the published ones, so that the next version is newer than any of them."""
    mine = {(account.organization_id, account.resource): account for account in accounts}
    rows = QuotaState.objects.filter(organization__in={organization for organization, _ in mine})
    for organization, resource, version in rows.values_list(
        "organization_id", "resource", "version"
    ):
        if account := mine.get((organization, resource)):
            account.version = max(account.version, version)


def _begin_period(account: Account, inputs: DecisionInputs, now: datetime) -> None:
    """Reset the caps of a locked account when a new period has begun."""
    if account.caps_version:
        period = inputs.timeline.period_at(now)
        if account.period_start != period.start:
            cap_usage.recount(account, period)
            account.caps_version += 1

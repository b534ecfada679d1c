"""Who is over the limit: decide about accounts and publish what was decided.

Called with the accounts locked, by whatever changed them and by the sweep. An account whose state
did not change in any way that others are told of keeps its version and is not published again.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from billing import cap_usage
from billing.account_locks import lock_organization
from billing.books import Books, load_books
from billing.cap_usage import CapsInForce, Subject
from billing.decision import THRESHOLDS, CapUse, Decision, ReachedCap, Snapshot, State, decide
from billing.models import Account, Cap, DecisionRecord, Limit, ThresholdNotice
from billing.timeline import load_timelines
from billing.totals import recut
from quota.account_state import AccountState
from quota.misstatements import misstatements
from quota.models import CapState, QuotaState
from quota.publication import publish
from quota.resources import RESOURCES

_STORED = [
    *("version", "booked", "state", "reason", "exhausted_since", "grace_began_at"),
    *("announced_percent", "caps_version", "period_start", "decide_again_at", "published_digest"),
]

_NO_CAPS = CapsInForce()


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
    records = []
    notices: list[ThresholdNotice] = []
    states = []
    if anew:
        _outrun(accounts)
    for account, snapshot, state, decision, uses in _decided(accounts, books, now):
        digest = _digest(state)
        columns = _columns(decision)
        publishes = anew or digest != account.published_digest
        if not publishes and _stored(account, columns) == columns:
            continue
        changed.append(account)
        notices += _notices(account, decision, now)
        if publishes:
            account.version += 1
            if (account.state, account.reason) != (columns["state"], columns["reason"]):
                records.append(_record(account, snapshot, decision))
            records += _cap_records(account, snapshot, decision, uses)
            account.published_digest = digest
            states.append(replace(state, version=account.version))
        for name, value in columns.items():
            setattr(account, name, value)
    if not changed:
        return
    Account.objects.bulk_create(  # an upsert: updating that many columns of many rows is slower
        changed, update_conflicts=True, unique_fields=["id"], update_fields=_STORED
    )
    DecisionRecord.objects.bulk_create(records)
    ThresholdNotice.objects.bulk_create(notices, ignore_conflicts=True)
    publish(states, anew=anew)


def settle(account: Account, now: datetime) -> None:
    """Cut the totals of a locked account to limits or grants that just changed, and enforce."""
    recut(account, load_timelines([account.pk])[account.pk])
    enforce([account], now)


def decide_account(organization_id: UUID, resource: str) -> None:
    """Decide about one account now and publish: quota asks when a state has stopped holding."""
    with transaction.atomic():
        enforce(lock_organization(organization_id, resource), timezone.now())


@dataclass(frozen=True, slots=True)
class Compared:
    """What is wrong with some accounts, by id.

    `outdated`: something else would be decided now. `misstated`: something else was decided than
    what is stored and published, with a sentence that says so.
    """

    outdated: list[int]
    misstated: dict[int, str]


def compare(accounts: Sequence[Account], now: datetime) -> Compared:
    """Compare accounts with what would be decided now, and what is published of them with both.

    Reads without locks: the answer says where to look again under the lock, nothing more.
    """
    books = load_books(account.pk for account in accounts)
    outdated = []
    misstated = {}
    states = {}
    for account, _, state, decision, _ in _decided(accounts, books, now):
        columns = _columns(decision)
        if _digest(state) != account.published_digest:
            outdated.append(account.pk)
        elif _stored(account, columns) != columns:
            misstated[account.pk] = "what is stored of the last decision is not what it was"
        else:
            states[account.pk] = replace(state, version=account.version)
    found = misstatements(states.values())
    for pk, state in states.items():
        sentence = found.get((state.organization_id, state.resource))
        if sentence is not None:
            misstated[pk] = sentence
    return Compared(outdated, misstated)


def _columns(decision: Decision) -> dict[str, Any]:
    """Return what is stored of a decision in the account's row."""
    return {
        "state": decision.state.value,
        "reason": decision.reason.value if decision.reason else "",
        "exhausted_since": decision.exhausted_since,
        "grace_began_at": decision.grace_began_at,
        "period_start": decision.period_start,
        "decide_again_at": decision.valid_until,
    }


def _stored(account: Account, columns: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(account, name) for name in columns}


def _outrun(accounts: Iterable[Account]) -> None:
    """Let the next version be newer than any that is published, whoever wrote that one."""
    mine = {(account.organization_id, account.resource): account for account in accounts}
    rows = QuotaState.objects.filter(organization__in={organization for organization, _ in mine})
    for organization, resource, version in rows.values_list(
        "organization_id", "resource", "version"
    ):
        if account := mine.get((organization, resource)):
            account.version = max(account.version, version)


def _decided(
    accounts: Sequence[Account], books: Mapping[int, Books], now: datetime
) -> Iterator[tuple[Account, Snapshot, AccountState, Decision, Sequence[CapState]]]:
    caps = cap_usage.load_caps(accounts)
    uses = cap_usage.uses(accounts)
    for account in accounts:
        found = books[account.pk]
        mine = uses.get(account.pk, ())
        snapshot = _snapshot(account, found, mine, now)
        decision = decide(snapshot)
        state = _state(account, found, caps.get(account.pk, _NO_CAPS), decision)
        yield account, snapshot, state, decision, mine


def _begin_period(account: Account, books: Books, now: datetime) -> None:
    """Let the caps of a locked account begin anew with its period."""
    if account.caps_version:
        period = books.timeline.period_at(now)
        if account.period_start != period.start:
            cap_usage.recount(account, period)
            account.caps_version += 1


def _snapshot(account: Account, books: Books, uses: Iterable[CapState], now: datetime) -> Snapshot:
    timeline = books.timeline
    limit = timeline.current
    return Snapshot(
        now=now,
        calendars=timeline.calendars,
        terms=timeline.terms,
        usage=books.usage,
        grants=timeline.grants,
        is_hard=limit is None or limit.mode == Limit.Mode.HARD,
        has_grace=RESOURCES[account.resource].has_grace,
        grace_days=0 if limit is None else limit.grace_days,
        organization_active=account.organization.is_active,
        booked=account.booked,
        exhausted_since=account.exhausted_since,
        grace_began_at=account.grace_began_at,
        insufficient_micro=account.insufficient_micro,
        insufficient_at=account.insufficient_at,
        thresholds=THRESHOLDS if limit is None else sorted(limit.thresholds),
        caps=[
            CapUse(use.scope, use.subject, use.cap_micro, use.usage_micro)
            for use in uses
            if use.cap_micro is not None
        ],
    )


def _state(account: Account, books: Books, caps: CapsInForce, decision: Decision) -> AccountState:
    limit, booked = books.timeline.current, books.booked
    return AccountState(
        organization_id=account.organization_id,
        resource=account.resource,
        version=0,
        state=decision.state.value,
        limited=decision.limited,
        reason=decision.reason and decision.reason.value,
        usage_micro=decision.usage,
        limit_micro=decision.limit,
        remaining_micro=decision.remaining,
        mode="soft" if limit and limit.mode == Limit.Mode.SOFT else "hard",
        limited_until=_score(decision.limited_until),
        resets_at=decision.resets_at,
        suspended_until=_score(decision.suspended_until),
        valid_until=decision.valid_until,
        allotment_micro=(
            None if decision.headroom is None else decision.headroom + sum(booked.values())
        ),
        booked=booked,
        ledger_epoch=str(account.ledger_epoch),
        project_cap_micro=caps.each.get(Cap.Scope.PROJECT),
        user_cap_micro=caps.each.get(Cap.Scope.USER),
        run_cap_micro=caps.each.get(Cap.Scope.RUN),
        caps_users=caps.caps_anybody(Cap.Scope.USER),
        caps_version=account.caps_version,
        capped_projects={
            reached.subject: math.ceil(reached.limited_until.timestamp())
            for reached in decision.reached_caps
            if reached.scope == Cap.Scope.PROJECT
        },
    )


def _score(instant: datetime | None) -> int | None:
    """Return an instant as a score: unix seconds, rounded up so that nothing lifts early."""
    return None if instant is None else math.ceil(instant.timestamp())


def _digest(state: AccountState) -> str:
    return hashlib.sha256(state.to_json().encode()).hexdigest()


def _record(account: Account, snapshot: Snapshot, decision: Decision) -> DecisionRecord:
    return DecisionRecord(
        account=account,
        version=account.version,
        decided_at=snapshot.now,
        previous_state=account.state,
        state=decision.state,
        reason=decision.reason or "",
        inputs=_plain(asdict(snapshot)),
        outcome=_plain(asdict(decision)),
    )


def _cap_records(
    account: Account, snapshot: Snapshot, decision: Decision, uses: Iterable[CapState]
) -> list[DecisionRecord]:
    """Return a record for each cap that is reached or lifted by now, and note that it is."""
    reached = {(cap.scope, cap.subject): cap for cap in decision.reached_caps}
    known = {(use.scope, use.subject) for use in uses if use.exhausted}
    cap_usage.note_exhausted(account, reached.keys() - known, known - reached.keys())
    return [
        _cap_record(account, snapshot, subject, reached.get(subject))
        for subject in sorted(reached.keys() ^ known)
    ]


def _cap_record(
    account: Account, snapshot: Snapshot, subject: Subject, reached: ReachedCap | None
) -> DecisionRecord:
    [*inputs] = (cap for cap in snapshot.caps if (cap.scope, cap.subject) == subject)
    return DecisionRecord(
        account=account,
        version=account.version,
        decided_at=snapshot.now,
        scope=subject[0],
        subject=subject[1],
        previous_state=State.OK if reached else State.LIMITED,
        state=State.LIMITED if reached else State.OK,
        reason=reached.reason if reached else "",
        inputs=_plain({"now": snapshot.now, "caps": [asdict(cap) for cap in inputs]}),
        outcome=_plain(asdict(reached) if reached else {}),
    )


def _notices(account: Account, decision: Decision, now: datetime) -> list[ThresholdNotice]:
    """Return what is to be announced, and note on the account what has been.

    Each threshold once per period, however often it is crossed; that something is left again, of
    the period that was exhausted.
    """
    percents = []
    if account.exhausted_since is not None and decision.exhausted_since is None:
        percents.append((account.period_start or decision.period_start, ThresholdNotice.RESOLVED))
    if account.period_start != decision.period_start:
        account.announced_percent = 0
    for percent in decision.reached:
        if percent > account.announced_percent:
            account.announced_percent = percent
            percents.append((decision.period_start, percent))
    return [
        ThresholdNotice(
            account=account,
            period_start=period_start,
            percent=percent,
            usage_micro=decision.usage or 0,
            noticed_at=now,
        )
        for period_start, percent in percents
    ]


def _plain(value: Any) -> Any:
    """Return the value as JSON can hold it; amounts stay integers, instants become ISO 8601."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value

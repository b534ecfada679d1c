"""Book events: ledger rows, totals, group bookings, decision and publication in one transaction.

Every event is booked at most once, ever: its uuid is the ledger's key. An event that is delivered
again is a duplicate if its payload is the same, and a conflict if it is not. Conflicts, and events
that can't be booked, are quarantined once per payload. They don't count as usage or as a booking of
their group until somebody decides about them.

The same events give the same totals in any order of arrival: an event counts in the stretch of time
in which it occurred.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import DataError
from django.db import Error as DatabaseFailure
from django.utils import timezone

from billing import metrics
from billing.account_locks import ensure_accounts, lock_accounts
from billing.decisions.decision_inputs import (
    DecisionInputs,
    Stretch,
    add_bookings,
    add_usage,
    load_inputs,
)
from billing.decisions.enforcement import enforce
from billing.ingestion import cap_counts, events
from billing.ingestion.corrections import attach_to_event, booked_events, cut_corrections
from billing.ingestion.events import Event, QuarantineReason, UnbookableEvent
from billing.ingestion.ledger_rows import LedgerRow, insert, ledger_row
from billing.ingestion.payer import AccountKey, account_key
from billing.ingestion.refund_rows import refund_rows_of_late
from billing.ingestion.waiting_corrections import take_waiting_corrections
from billing.models import Account, QuarantinedEvent, UsageEvent
from billing.retries import DatabaseBusy, breaks_a_rule, in_transaction
from projects.models import Project

ACCEPTED = "accepted"
DUPLICATE = "duplicate"
CONFLICT = "conflict"
QUARANTINED = "quarantined"

DELIVERED_AGAIN = "delivered again"
"""`resolved_by` of a quarantined event that could be booked when it was delivered again."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome for one item. `version` is the version of its account after the booking."""

    uuid: str | None
    status: str
    reason: str | None = None
    version: int | None = None


class _Incoming(NamedTuple):
    """One item with its identity, and either its event or the reason why it can't be booked."""

    uuid: UUID | None
    payload: str
    sha256: str
    event: Event | None
    account: AccountKey | None
    error: UnbookableEvent | None


def book(items: Sequence[object]) -> list[Result]:
    """Book a batch and return a result for each item, in the order given.

    The whole batch is one transaction. If the decision about one account fails, each account's
    events become a transaction of their own, and the events of that account are quarantined. Raises
    the database's own errors, `DatabaseBusy` if the database is too slow, and `NestedTooDeeply`. It
    is safe to send the batch again: events that were booked by then are duplicates.
    """
    now = timezone.now()
    read = [_read(item, now) for item in items]
    projects = _organizations_of({incoming.event.project_id for incoming in read if incoming.event})
    batch = [_resolve(incoming, projects) for incoming in read]
    try:
        return _book_together(batch)
    except Exception as error:
        if _is_temporary(error):
            raise
        logger.exception("a batch could not be booked, trying its accounts one by one")
        return _book_by_account(batch)


def _book_together(batch: Sequence[_Incoming]) -> list[Result]:
    ids = _account_ids({incoming.account for incoming in batch if incoming.account})
    return in_transaction(lambda: _book(batch, ids))


def _book_by_account(batch: Sequence[_Incoming]) -> list[Result]:
    places: dict[AccountKey | None, list[int]] = defaultdict(list)
    for place, incoming in enumerate(batch):
        places[incoming.account].append(place)
    results: dict[int, Result] = {}
    for account, of_account in places.items():
        events_of_account = [batch[place] for place in of_account]
        try:
            booked = _book_together(events_of_account)
        except Exception as error:
            if _is_temporary(error):
                raise
            logger.exception("%s could not be decided, quarantining its events", account)
            metrics.UNDECIDABLE.inc(len(events_of_account))
            undecidable = UnbookableEvent(QuarantineReason.ACCOUNT_UNDECIDABLE, repr(error))
            booked = _book_together(
                [
                    each._replace(event=None, account=None, error=each.error or undecidable)
                    for each in events_of_account
                ]
            )
        results |= zip(of_account, booked, strict=True)
    return [results[place] for place in range(len(batch))]


def _is_temporary(error: Exception) -> bool:
    """Return whether the error is temporary (the database) rather than permanent (the data)."""
    if isinstance(error, DatabaseFailure):
        return not isinstance(error, DataError) and not breaks_a_rule(error)
    return isinstance(error, DatabaseBusy)


def _read(item: object, now: datetime) -> _Incoming:
    payload = events.canonical(item)
    event = error = None
    try:
        event = events.read(item, now)
    except UnbookableEvent as unbookable:
        error = unbookable
    uuid = event.uuid if event else events.claimed_uuid(item)
    return _Incoming(uuid, payload, events.digest(payload), event, None, error)


def _organizations_of(project_ids: Collection[int]) -> dict[int, UUID]:
    rows = Project.objects.filter(pk__in=project_ids).order_by()
    return dict(rows.values_list("pk", "organization_id"))


def _resolve(incoming: _Incoming, organizations: Mapping[int, UUID]) -> _Incoming:
    """Return the item with the account that pays, or with the error if it cannot be booked."""
    event = incoming.event
    if event is None:
        return incoming
    try:
        return incoming._replace(account=account_key(event, organizations))
    except UnbookableEvent as error:
        return incoming._replace(event=None, error=error)


def _account_ids(keys: Collection[AccountKey]) -> list[int]:
    """Return the ids of accounts, creating missing ones."""
    organizations = {organization_id for organization_id, _ in keys}
    ids = _ids_by_key(organizations)
    if any(key not in ids for key in keys):
        ensure_accounts(organizations)
        ids = _ids_by_key(organizations)
    return [ids[key] for key in keys]


def _ids_by_key(organizations: Collection[UUID]) -> dict[AccountKey, int]:
    rows = Account.objects.filter(organization__in=organizations).order_by()
    return {
        (organization_id, resource): pk
        for pk, organization_id, resource in rows.values_list("pk", "organization_id", "resource")
    }


def _book(batch: Sequence[_Incoming], account_ids: Collection[int]) -> list[Result]:
    accounts = {
        (account.organization_id, account.resource): account
        for account in lock_accounts(account_ids)
    }
    # Read the clock after taking the locks: one `now` for the booking and the decision.
    now = timezone.now()
    known = _known([incoming.uuid for incoming in batch if incoming.uuid])
    earlier = _earlier({incoming.sha256 for incoming in batch})
    booked = booked_events(
        {each.event.adjusts for each in batch if each.event and each.event.adjusts}
    )
    batch = list(batch)
    statuses = [""] * len(batch)
    rows: list[LedgerRow] = []
    quarantined: dict[str, QuarantinedEvent] = {}
    # In a batch, a correction can come before its event.
    for place in sorted(range(len(batch)), key=lambda place: _corrects(batch[place])):
        incoming = batch[place]
        booked_as = known.get(incoming.uuid) if incoming.uuid else None
        row = None
        if booked_as == incoming.sha256 or _is_decided(earlier.get(incoming.sha256)):
            statuses[place] = DUPLICATE
            continue
        if incoming.event is not None and booked_as is None:
            account = accounts[incoming.account] if incoming.account else None
            row = ledger_row(incoming.event, account, incoming.sha256, now)
            try:
                row = attach_to_event(row, booked) if row.adjusts else row
            except UnbookableEvent as error:
                batch[place] = incoming = incoming._replace(error=error)
                row = None
        if row is None:
            statuses[place] = QUARANTINED if booked_as is None else CONFLICT
            quarantined[incoming.sha256] = _quarantined(incoming, now)
        else:
            statuses[place] = ACCEPTED
            rows.append(row)
            known[row.uuid] = incoming.sha256
            booked[row.uuid] = row
    QuarantinedEvent.objects.bulk_create(quarantined.values(), ignore_conflicts=True)
    _close(earlier, rows, now)
    book_rows(rows, list(accounts.values()), now)
    return [
        Result(
            uuid=str(incoming.uuid) if incoming.uuid else None,
            status=status,
            reason=_reason(incoming, status),
            version=accounts[incoming.account].version if incoming.account else None,
        )
        for incoming, status in zip(batch, statuses, strict=True)
    ]


def book_rows(rows: Sequence[LedgerRow], accounts: Sequence[Account], now: datetime) -> None:
    """Insert ledger rows, update totals, decide and publish. The accounts must be locked.

    This also books corrections that waited for one of the rows. If a row belongs to a run that is
    already refunded, its cost is given back.
    """
    if not rows:
        return
    rows = cut_corrections([*rows, *take_waiting_corrections(rows, accounts, now)])
    rows = [*rows, *refund_rows_of_late(rows, accounts, now)]
    insert(rows)
    touched = {row.account_id for row in rows}
    booked = [account for account in accounts if account.pk in touched]
    if not booked:
        return
    inputs = load_inputs(account.pk for account in booked)
    add_usage(inputs, _usage(rows, inputs))
    add_bookings(inputs, _bookings(rows))
    periods = {account.pk: inputs[account.pk].timeline.period_at(now) for account in booked}
    cap_counts.count_rows(booked, rows, periods)
    for account in booked:
        account.booked = True
    enforce(booked, now, inputs=inputs)


def _corrects(incoming: _Incoming) -> bool:
    return incoming.event is not None and incoming.event.adjusts is not None


def _known(uuids: Collection[UUID]) -> dict[UUID, str]:
    rows = UsageEvent.objects.filter(pk__in=uuids).order_by()
    return dict(rows.values_list("uuid", "payload_sha256"))


def _earlier(payloads: Collection[str]) -> dict[str, QuarantinedEvent]:
    """Return the quarantined events with these payloads, locked until the transaction ends."""
    rows = QuarantinedEvent.objects.select_for_update().filter(payload_sha256__in=payloads)
    return {row.payload_sha256: row for row in rows.defer("payload").order_by("pk")}


def _is_decided(earlier: QuarantinedEvent | None) -> bool:
    return earlier is not None and earlier.state != QuarantinedEvent.State.OPEN


def _close(
    earlier: Mapping[str, QuarantinedEvent], rows: Iterable[LedgerRow], now: datetime
) -> None:
    """Close the quarantined events that could now be booked, because they were delivered again."""
    booked = [earlier[row.payload_sha256].pk for row in rows if row.payload_sha256 in earlier]
    if booked:
        QuarantinedEvent.objects.filter(pk__in=booked).update(
            state=QuarantinedEvent.State.BOOKED, resolved_at=now, resolved_by=DELIVERED_AGAIN
        )


def _usage(
    rows: Iterable[LedgerRow], inputs: Mapping[int, DecisionInputs]
) -> Mapping[tuple[int, Stretch], int]:
    stretches: dict[int, Stretch] = {}
    amounts: dict[tuple[int, Stretch], int] = defaultdict(int)
    for row in rows:
        if row.account_id is None:
            continue
        stretch = stretches.get(row.account_id)
        if stretch is None or not stretch[0] <= row.occurred_at < stretch[1]:
            stretch = inputs[row.account_id].timeline.stretch_at(row.occurred_at)
            stretches[row.account_id] = stretch
        amounts[row.account_id, stretch] += row.credits_micro
    return amounts


def _bookings(rows: Iterable[LedgerRow]) -> Mapping[tuple[int, str], int]:
    amounts: dict[tuple[int, str], int] = defaultdict(int)
    for row in rows:
        if row.account_id is not None and row.group:
            amounts[row.account_id, row.group] += row.debited_micro
    return amounts


def _quarantined(incoming: _Incoming, now: datetime) -> QuarantinedEvent:
    error = incoming.error or UnbookableEvent(
        QuarantineReason.CONFLICT, "this uuid is booked with another payload"
    )
    return QuarantinedEvent(
        event_uuid=str(incoming.uuid) if incoming.uuid else "",
        reason=error.reason,
        detail=error.detail,
        awaits=_awaited(incoming, error),
        payload=incoming.payload,
        payload_sha256=incoming.sha256,
        received_at=now,
    )


def _awaited(incoming: _Incoming, error: UnbookableEvent) -> UUID | None:
    """Return the uuid of the event that a quarantined correction waits for, if any."""
    if incoming.event is None or error.reason != QuarantineReason.CORRECTED_EVENT_UNKNOWN:
        return None
    return incoming.event.adjusts


def _reason(incoming: _Incoming, status: str) -> str | None:
    if status == CONFLICT:
        return QuarantineReason.CONFLICT
    if status == QUARANTINED and incoming.error is not None:
        return incoming.error.reason
    return None

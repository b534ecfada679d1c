"""Compare the records of decisions, by people and by the system, with what was changed. Read-only.

Quarantined events, the audit trail, decision records and threshold notices aren't projections of
the ledger. Nothing repairs them: a person has to look.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from django.db.models import F, Max, Q, QuerySet

from billing.allowances.audited_rows import audit_value, audited_fields
from billing.ingestion import events
from billing.ingestion.ledger import DELIVERED_AGAIN
from billing.ingestion.quarantine import debited_by, parsed
from billing.ingestion.refund_rows import RefundOfRun
from billing.ingestion.refunds import span_of
from billing.ingestion.waiting_corrections import ITS_EVENT_ARRIVED
from billing.models import (
    Account,
    AttemptRefund,
    AuditEntry,
    Cap,
    CreditGrant,
    DecisionRecord,
    Limit,
    QuarantinedEvent,
    RunRefund,
    UsageEvent,
)

Action = AuditEntry.Action
State = QuarantinedEvent.State

_WRITTEN_WITH: dict[Action, type[Limit | Cap | CreditGrant]] = {
    Action.LIMIT_SET: Limit,
    Action.CAP_SET: Cap,
    Action.CREDITS_GRANTED: CreditGrant,
}
_DECIDED_BY = {
    State.BOOKED.value: Action.EVENT_BOOKED,
    State.DISCARDED.value: Action.EVENT_DISCARDED,
}

_BY_ITSELF = {DELIVERED_AGAIN, ITS_EVENT_ARRIVED}


def audit_trail_faults() -> Iterator[str]:
    """Yield a sentence for each change that is not recorded, or is recorded differently."""
    yield from _quarantine()
    for action, model in _WRITTEN_WITH.items():
        yield from _allowances(action, model)
    yield from _voids()
    yield from _refunds()
    yield from _refunded_runs()
    yield from _decisions()
    yield from _notices()


def _quarantine() -> Iterator[str]:
    ledger = UsageEvent.objects.order_by()
    in_ledger = _with_payload_of(ledger.exclude(kind__in=("discarded", "refund")))
    given_back = _with_payload_of(ledger.filter(kind="discarded"))
    entries: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for entry in AuditEntry.objects.filter(action__in=_DECIDED_BY.values()).order_by("pk"):
        entries[entry.details.get("quarantined")].append((entry.action, entry.actor))
    for row in QuarantinedEvent.objects.order_by("pk").iterator(chunk_size=500):
        event = f"quarantined event {row.pk}"
        decided = row.state != State.OPEN
        if decided != (row.resolved_at is not None):
            yield f"{event} is {row.state}, decided at {row.resolved_at}"
        if row.state == State.OPEN and row.pk in in_ledger:
            yield f"{event} is open, but booked: book it now, which only closes it"
        if row.state == State.BOOKED and row.pk not in in_ledger:
            yield f"{event} is closed as booked, but not in the ledger"
        by_itself = row.state == State.BOOKED and row.resolved_by in _BY_ITSELF
        recorded = (
            [(_DECIDED_BY.get(row.state), row.resolved_by)] if decided and not by_itself else []
        )
        if entries.pop(row.pk, []) != recorded:
            yield f"{event}: the audit trail does not say that it is {row.state}"
        if events.digest(row.payload) != row.payload_sha256:
            yield f"{event}: its payload is not the one that arrived"
            continue
        uuid = events.claimed_uuid(parsed(row))
        if row.event_uuid != (str(uuid) if uuid else ""):
            yield f"{event}: its payload has the uuid {uuid}, not {row.event_uuid}"
        if row.awaits and row.awaits != events.corrected_uuid(parsed(row)):
            yield f"{event} does not correct event {row.awaits}, which it awaits"
        if row.state == State.DISCARDED and debited_by(row) and row.pk not in given_back:
            yield f"{event} is discarded, but its group never got its debit back"
    for pk in entries:
        yield f"quarantined event {pk} is missing, but was decided about"


def _with_payload_of(rows: QuerySet[UsageEvent]) -> set[int]:
    stored = QuarantinedEvent.objects.filter(payload_sha256__in=rows.values("payload_sha256"))
    return set(stored.values_list("pk", flat=True))


def _allowances(action: Action, model: type[Limit | Cap | CreditGrant]) -> Iterator[str]:
    """Yield a sentence for each limit, cap or grant that differs from the audit trail."""
    accounts: dict[tuple[UUID | None, str], Account] = {
        (account.organization_id, account.resource): account
        for account in Account.objects.select_related("organization")
    }
    rows: dict[int, list[Any]] = defaultdict(list)
    for row in model.objects.order_by("pk"):
        rows[row.account_id].append(row)
    entries: dict[int | None, list[AuditEntry]] = defaultdict(list)
    for entry in AuditEntry.objects.filter(action=action).order_by("pk"):
        named = accounts.get((entry.organization_id, str(entry.details.get("resource"))))
        entries[named.pk if named else None].append(entry)
    plural = model._meta.verbose_name_plural
    for account in accounts.values():
        own_rows, written = rows[account.pk], entries.pop(account.pk, [])
        if len(own_rows) != len(written):
            yield f"{account}: {len(own_rows)} {plural}, but {len(written)} in the audit trail"
            continue
        for row, entry in zip(own_rows, written, strict=True):
            who = {"row": row.pk, "actor": row.actor, "reason": row.reason}
            recorded = entry.details | {"actor": entry.actor, "reason": entry.reason}
            for name, value in (audited_fields(row) | who).items():
                if recorded.get(name, value) != value:
                    entity = f"{model._meta.verbose_name} {row.pk}"
                    yield f"{account}: {entity}: {name} was {recorded[name]}"
    for entry in (entry for left in entries.values() for entry in left):
        yield f"audit entry {entry.pk}: its account does not exist"


def _voids() -> Iterator[str]:
    voided = set(CreditGrant.objects.exclude(voided_at=None).values_list("pk", flat=True))
    recorded = Counter(_details(Action.GRANT_VOIDED, "grant"))
    at = {
        entry.details["grant"]: entry.details["voided_at"]
        for entry in AuditEntry.objects.filter(action=Action.GRANT_VOIDED)
        if "voided_at" in entry.details
    }
    for pk in sorted(voided | recorded.keys(), key=str):
        if recorded[pk] != (pk in voided):
            fact = "voided" if pk in voided else "not voided"
            yield f"grant {pk} is {fact}, but was voided {recorded[pk]} times in the audit trail"
    for grant in CreditGrant.objects.filter(pk__in=voided):
        if audit_value(grant.voided_at) != at.get(grant.pk, audit_value(grant.voided_at)):
            yield f"grant {grant.pk}: it was voided at {at[grant.pk]}"


def _refunds() -> Iterator[str]:
    rows = UsageEvent.objects.filter(kind=UsageEvent.Kind.REFUND).order_by()
    booked = Counter(
        (str(event), -micro) for event, micro in rows.values_list("adjusts", "credits_micro")
    )
    recorded = Counter(
        (entry.details.get("event"), entry.details.get("credits_micro"))
        for entry in AuditEntry.objects.filter(action=Action.EVENT_REFUNDED)
    )
    for action in (Action.RUN_REFUNDED, Action.ATTEMPT_REFUNDED):
        for events_of_run in _details(action, "events"):
            recorded.update(events_of_run.items())
    for event, micro in booked.keys() | recorded.keys():
        if booked[event, micro] != recorded[event, micro]:
            yield (
                f"event {event} was refunded {micro} micro-credits {booked[event, micro]} times, "
                f"in the audit trail {recorded[event, micro]} times"
            )


def _refunded_runs() -> Iterator[str]:
    yield from _differing(Action.RUN_REFUNDED, RunRefund.objects.order_by("pk"), "run")
    attempts = AttemptRefund.objects.order_by("task_run_id", "made_at")
    yield from _differing(Action.ATTEMPT_REFUNDED, attempts, "an attempt at run")


def _differing(action: Action, refunds: Iterable[RefundOfRun], what: str) -> Iterator[str]:
    """Yield a sentence for each refund that differs from the audit trail, or is only in there."""
    recorded: dict[object, list[object]] = defaultdict(list)
    for entry in AuditEntry.objects.filter(action=action).order_by("pk"):
        fields = [entry.details.get(name) for name in ("project", "made_at", "span")]
        recorded[entry.details.get("run")].append((*fields, entry.actor, entry.reason))
    for refund in refunds:
        run = str(refund.task_run_id)
        fields = [refund.project_id, audit_value(refund.made_at), span_of(refund)]
        made = (*fields, refund.actor, refund.reason)
        if not recorded[run] or recorded[run].pop(0) != made:
            yield f"{what} {run} was refunded, but not as the audit trail says"
    for key, others in recorded.items():
        if others:
            yield f"{what} {key} was refunded in the audit trail only"


def _details(action: Action, name: str) -> Iterator[Any]:
    for details in AuditEntry.objects.filter(action=action).values_list("details", flat=True):
        yield details.get(name)


def _decisions() -> Iterator[str]:
    """Yield a sentence for each decision that contradicts itself, the one before or the account."""
    newest: dict[int, tuple[str, str]] = defaultdict(lambda: ("", ""))
    records = DecisionRecord.objects.order_by("pk")
    for record in records.iterator(chunk_size=500):
        decision = f"decision {record.pk} of account {record.account_id}"
        if record.inputs.get("now") != record.decided_at.isoformat():
            yield f"{decision}: its time is not that of its inputs"
        if bool(record.scope) != bool(record.subject):
            yield f"{decision} is about {record.scope} {record.subject}"
        elif record.subject:
            recorded = (record.state == "limited", record.reason) if record.outcome else (False, "")
            wanted = (bool(record.outcome), record.outcome.get("reason", ""))
            named = {(cap["scope"], cap["subject"]) for cap in record.inputs.get("caps", ())}
            if recorded != wanted or not named <= {(record.scope, record.subject)}:
                yield f"{decision} about {record.scope} {record.subject} differs from its outcome"
        if record.scope or record.subject:
            continue
        if (record.state, record.reason) != (
            record.outcome.get("state"),
            record.outcome.get("reason") or "",
        ):
            yield f"{decision}: its state differs from its outcome"
        if record.previous_state != newest[record.account_id][0]:
            yield f"{decision}: the decision before it is missing"
        newest[record.account_id] = record.state, record.reason
    for pk, state, reason in Account.objects.order_by("pk").values_list("pk", "state", "reason"):
        if newest[pk] != (state, reason):
            yield f"account {pk} is {state} {reason}, but no decision says why"


def _notices() -> Iterator[str]:
    period = Q(notices__period_start=F("period_start"))
    this_round = period & Q(notices__round=F("warning_round"))
    highest = Account.objects.annotate(
        highest=Max("notices__percent", filter=this_round),
        last_round=Max("notices__round", filter=period),
    )
    for account in highest.exclude(state="").select_related("organization"):
        announced, was = account.announced_percent, account.highest or 0
        if announced != was and not (announced > was and _was_announced_before(account)):
            yield f"{account}: {announced} % is stored as announced, but {was} % was"
        if (account.last_round or 0) > account.warning_round:
            yield f"{account}: round {account.last_round} of its notices is not stored"


def _was_announced_before(account: Account) -> bool:
    """Return whether an earlier round of the period announced the account's threshold."""
    if account.period_start is None:
        return False
    return account.notices.filter(
        period_start=account.period_start,
        round__lt=account.warning_round,
        percent=account.announced_percent,
    ).exists()

"""What is kept of a decision for people: what it was made from, and what is to be announced."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from billing.allowances import cap_usage
from billing.allowances.cap_usage import Subject
from billing.decisions.assessment import Assessment
from billing.decisions.decision import ReachedCap, State
from billing.models import DecisionRecord, ThresholdNotice


def record(found: Assessment) -> DecisionRecord:
    """Return the record of a decision that changes its account's state."""
    return DecisionRecord(
        account=found.account,
        version=found.account.version,
        decided_at=found.snapshot.now,
        previous_state=found.account.state,
        state=found.decision.state,
        reason=found.decision.reason or "",
        inputs=_plain(asdict(found.snapshot)),
        outcome=_plain(asdict(found.decision)),
    )


def cap_records(found: Assessment) -> list[DecisionRecord]:
    """Return a record for each cap that is reached or lifted by now, and note that it is."""
    reached = {(cap.scope, cap.subject): cap for cap in found.decision.reached_caps}
    known = {(use.scope, use.subject) for use in found.uses if use.exhausted}
    cap_usage.mark_exhausted(found.account, reached.keys() - known, known - reached.keys())
    return [
        _cap_record(found, subject, reached.get(subject))
        for subject in sorted(reached.keys() ^ known)
    ]


def _cap_record(found: Assessment, subject: Subject, reached: ReachedCap | None) -> DecisionRecord:
    snapshot = found.snapshot
    [*inputs] = (cap for cap in snapshot.caps if (cap.scope, cap.subject) == subject)
    return DecisionRecord(
        account=found.account,
        version=found.account.version,
        decided_at=snapshot.now,
        scope=subject[0],
        subject=subject[1],
        previous_state=State.OK if reached else State.LIMITED,
        state=State.LIMITED if reached else State.OK,
        reason=reached.reason if reached else "",
        inputs=_plain({"now": snapshot.now, "caps": [asdict(cap) for cap in inputs]}),
        outcome=_plain(asdict(reached) if reached else {}),
    )


def notices(found: Assessment) -> list[ThresholdNotice]:
    """Return what is to be announced, and note on the account what has been.

    Each threshold once per period, however often it is crossed; that something is left again, of
    the period that was exhausted.
    """
    account, decision = found.account, found.decision
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
            noticed_at=found.snapshot.now,
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

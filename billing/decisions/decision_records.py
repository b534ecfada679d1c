"""What people can look up about a decision: its inputs and outcome, and threshold notices."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from billing.decisions import cap_usage
from billing.decisions.assessment import Assessment
from billing.decisions.cap_usage import Subject
from billing.decisions.decision import Decision, ReachedCap, State
from billing.models import Account, DecisionRecord, ThresholdNotice


def record(assessment: Assessment) -> DecisionRecord:
    """Return the record of a decision that changed its account's state."""
    return DecisionRecord(
        account=assessment.account,
        version=assessment.account.version,
        decided_at=assessment.snapshot.now,
        previous_state=assessment.account.state,
        state=assessment.decision.state,
        reason=assessment.decision.reason or "",
        inputs=_plain(asdict(assessment.snapshot)),
        outcome=_plain(asdict(assessment.decision)),
    )


def cap_records(assessment: Assessment) -> list[DecisionRecord]:
    """Return a record for each cap that was reached or lifted, and mark those caps accordingly."""
    reached = {(cap.scope, cap.subject): cap for cap in assessment.decision.reached_caps}
    known = {(cap.scope, cap.subject) for cap in assessment.cap_states if cap.exhausted}
    cap_usage.mark_exhausted(assessment.account, reached.keys() - known, known - reached.keys())
    return [
        _cap_record(assessment, subject, reached.get(subject))
        for subject in sorted(reached.keys() ^ known)
    ]


def _cap_record(
    assessment: Assessment, subject: Subject, reached: ReachedCap | None
) -> DecisionRecord:
    snapshot = assessment.snapshot
    [*inputs] = (cap for cap in snapshot.caps if (cap.scope, cap.subject) == subject)
    return DecisionRecord(
        account=assessment.account,
        version=assessment.account.version,
        decided_at=snapshot.now,
        scope=subject[0],
        subject=subject[1],
        previous_state=State.OK if reached else State.LIMITED,
        state=State.LIMITED if reached else State.OK,
        reason=reached.reason if reached else "",
        inputs=_plain({"now": snapshot.now, "caps": [asdict(cap) for cap in inputs]}),
        outcome=_plain(asdict(reached) if reached else {}),
    )


def notices(assessment: Assessment) -> list[ThresholdNotice]:
    """Return the threshold notices to store, and note on the account what was announced.

    A threshold is announced once per round, however often it is crossed. More credits that bring
    the usage below an announced threshold begin a new round; a refund doesn't. The notice that
    credits are left again belongs to the round in which they ran out.
    """
    account, decision = assessment.account, assessment.decision
    noticed = []
    resolved = account.exhausted_since is not None and decision.exhausted_since is None
    if resolved:
        period_start = account.period_start or decision.period_start
        noticed.append((period_start, account.warning_round, ThresholdNotice.RESOLVED))
    highest = max(decision.reached, default=0)
    credits = _credits_of_period(decision)
    if account.announced_percent and account.announced_of_micro is None:
        # Earlier versions did not store this. Start from the present credits: no notice is
        # repeated.
        account.announced_of_micro = credits
    if account.period_start != decision.period_start:
        account.announced_percent = account.warning_round = 0
    elif (highest < account.announced_percent or resolved) and _are_more(credits, account):
        account.announced_percent, account.announced_of_micro = highest, credits
        account.warning_round += 1
    for percent in decision.reached:
        if percent > account.announced_percent:
            account.announced_percent, account.announced_of_micro = percent, credits
            noticed.append((decision.period_start, account.warning_round, percent))
    return [
        ThresholdNotice(
            account=account,
            period_start=period_start,
            round=warning_round,
            percent=percent,
            usage_micro=decision.usage or 0,
            noticed_at=assessment.snapshot.now,
        )
        for period_start, warning_round, percent in noticed
    ]


def _credits_of_period(decision: Decision) -> int | None:
    """Return the period's credits, used and left. None is unlimited."""
    return None if decision.remaining is None else (decision.usage or 0) + decision.remaining


def _are_more(credits: int | None, account: Account) -> bool:
    """Return whether these are more credits than at the account's last announcement."""
    return credits is None or credits > (account.announced_of_micro or 0)


def _plain(value: Any) -> Any:
    """Return the value in a form that JSON can hold. Instants become ISO 8601 text."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value

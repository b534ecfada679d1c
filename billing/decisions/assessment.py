"""Assess accounts: compute the decision and the state to publish, without writing anything."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from billing.decisions import cap_usage
from billing.decisions.cap_usage import CapsInForce
from billing.decisions.decision import THRESHOLDS, CapUse, Decision, Snapshot, decide
from billing.decisions.decision_inputs import DecisionInputs
from billing.models import Account, Cap, Limit
from quota.account_state import AccountState
from quota.models import CapState
from quota.resources import RESOURCES

_NO_CAPS = CapsInForce()


@dataclass(frozen=True, slots=True)
class Assessment:
    """A decision about an account, what it was made from, and the state to publish for it.

    `cap_states` are the caps that were considered. The caller fills in the version of `state`.
    """

    account: Account
    snapshot: Snapshot
    decision: Decision
    state: AccountState
    cap_states: Sequence[CapState]

    @property
    def digest(self) -> str:
        """Hash of the state. It changes whenever there is something new to publish."""
        return hashlib.sha256(self.state.to_json().encode()).hexdigest()

    @property
    def columns(self) -> dict[str, Any]:
        """The fields of the decision that are stored in the account's row."""
        return {
            "state": self.decision.state.value,
            "reason": self.decision.reason.value if self.decision.reason else "",
            "exhausted_since": self.decision.exhausted_since,
            "grace_began_at": self.decision.grace_began_at,
            "period_start": self.decision.period_start,
            "decide_again_at": self.decision.valid_until,
        }

    @property
    def is_stored(self) -> bool:
        """Whether the account's row already holds this decision."""
        return all(getattr(self.account, name) == value for name, value in self.columns.items())


def assess(
    accounts: Sequence[Account], inputs: Mapping[int, DecisionInputs], now: datetime
) -> Iterator[Assessment]:
    """Yield an assessment of each account. Runs two queries if any has caps, otherwise none."""
    caps = cap_usage.load_caps(accounts)
    cap_states = cap_usage.load_cap_states(accounts)
    for account in accounts:
        own_inputs = inputs[account.pk]
        own_cap_states = cap_states.get(account.pk, ())
        snapshot = _snapshot(account, own_inputs, own_cap_states, now)
        decision = decide(snapshot)
        state = _state(account, own_inputs, caps.get(account.pk, _NO_CAPS), decision)
        yield Assessment(account, snapshot, decision, state, own_cap_states)


def _snapshot(
    account: Account, inputs: DecisionInputs, cap_states: Iterable[CapState], now: datetime
) -> Snapshot:
    timeline = inputs.timeline
    limit = timeline.current
    return Snapshot(
        now=now,
        calendars=timeline.calendars,
        terms=timeline.terms,
        usage=inputs.usage,
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
            CapUse(cap.scope, cap.subject, cap.cap_micro, cap.usage_micro)
            for cap in cap_states
            if cap.cap_micro is not None
        ],
    )


def _state(
    account: Account, inputs: DecisionInputs, caps: CapsInForce, decision: Decision
) -> AccountState:
    limit, booked = inputs.timeline.current, inputs.booked
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
        time_zone=inputs.timeline.calendars[-1].time_zone,
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
        caps_users=caps.caps_any(Cap.Scope.USER),
        caps_version=account.caps_version,
        capped_projects={
            reached.subject: math.ceil(reached.limited_until.timestamp())
            for reached in decision.reached_caps
            if reached.scope == Cap.Scope.PROJECT
        },
    )


def _score(instant: datetime | None) -> int | None:
    """Return an instant as a score: unix seconds, rounded up. A limit must not lift early."""
    return None if instant is None else math.ceil(instant.timestamp())

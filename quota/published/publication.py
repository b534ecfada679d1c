"""Publishing decisions: to rows in the decision's own transaction, and to Redis after the commit.

The rows are the truth. If Redis can't be reached, the reconciler finds the difference within a
second. The change feed records only what a gateway has to learn. That excludes the gateway's own
bookings, which leave the allotment unchanged.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import redis
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from projects.models import Project
from quota.account_state import Account, AccountState
from quota.models import QuotaState, SetMember
from quota.published import changes, credit_gains, delta, redis_client
from quota.published.delta import AccountDelta, MemberScores

__all__ = ["AccountState", "publish", "republish_project"]

logger = logging.getLogger(__name__)


def publish(states: Iterable[AccountState], *, rewrite: bool = False) -> None:
    """Publish decisions; call it last in the transaction that made them.

    A state that is not newer than the published one of its account is ignored. With `rewrite`,
    every row is written again, in case somebody changed the rows by hand.
    """
    newest: dict[Account, AccountState] = {}
    for state in sorted(states, key=_age):
        newest[state.organization_id, state.resource] = state
    with transaction.atomic():
        before = _locked_states(newest)
        fresh = {
            account: newest[account]
            for account in sorted(newest)
            if rewrite or account not in before or _age(newest[account]) > _age(before[account])
        }
        if not fresh:
            return
        now = timezone.now()
        documents = {account: state.to_json() for account, state in fresh.items()}
        _write_states(fresh, documents, now)
        rescored = [
            state
            for account, state in fresh.items()
            if rewrite or account not in before or _scores(state) != _scores(before[account])
        ]
        announced = [
            state
            for account, state in fresh.items()
            if rewrite
            or account not in before
            or _feed_fields(state) != _feed_fields(before[account])
        ]
        projects = _projects_of([*rescored, *announced])
        members = _write_members(rescored, projects, now)
        if rewrite:
            tokens = [project.api_token for project in projects]
            for account in fresh:
                buried = _bury(_published(account).exclude(token__in=tokens), now)
                members[account] = [*members.get(account, ()), *buried]
        deltas = [
            AccountDelta(
                state.account,
                state.resource,
                members.get(account, ()),
                documents[account],
                state.version,
            )
            for account, state in fresh.items()
        ]
        transaction.on_commit(lambda: _push(deltas))
        credit_gains.announce((before.get(account), state) for account, state in fresh.items())
        changes.record(
            (state.resource, project)
            for state in announced
            for project in projects
            if project.organization_id == state.organization_id
        )


def republish_project(project: Project) -> None:
    """Publish for a project that is new, or whose API token was just replaced.

    Call it last in that transaction. From the commit on the project is limited if its organization
    is, and its old token has a tombstone.
    """
    with transaction.atomic():
        rows = QuotaState.objects.select_for_update().filter(
            organization_id=project.organization_id
        )
        states = [row.published for row in rows.order_by("resource")]
        now = timezone.now()
        members = _write_members(states, [project], now)
        for state in states:
            account = (state.organization_id, state.resource)
            former = _published(account).filter(project=project).exclude(token=project.api_token)
            members[account] = [*members.get(account, ()), *_bury(former, now)]
        deltas = [
            AccountDelta(f"{organization}:{resource}", resource, scores)
            for (organization, resource), scores in members.items()
        ]
        transaction.on_commit(lambda: _push(deltas))
        changes.record((state.resource, project) for state in states)


def _locked_states(accounts: Iterable[Account]) -> dict[Account, AccountState]:
    rows = (
        QuotaState.objects.select_for_update()
        .filter(
            organization_id__in={organization for organization, _ in accounts},
            resource__in={resource for _, resource in accounts},
        )
        .order_by("organization_id", "resource")
    )
    read = {(row.organization_id, row.resource): _readable(row) for row in rows}
    return {account: state for account, state in read.items() if state is not None}


def _readable(row: QuotaState) -> AccountState | None:
    try:
        return row.published
    except (ValueError, KeyError, TypeError):
        logger.error("%s:%s: the published state can't be read", row.organization_id, row.resource)
        return None


def _write_states(
    states: Mapping[Account, AccountState], documents: Mapping[Account, str], now: datetime
) -> None:
    QuotaState.objects.bulk_create(
        [
            QuotaState(
                organization_id=state.organization_id,
                resource=state.resource,
                version=state.version,
                state=state.state,
                valid_until=state.valid_until,
                document=documents[account],
                changed_at=now,
            )
            for account, state in states.items()
        ],
        update_conflicts=True,
        unique_fields=["organization", "resource"],
        update_fields=["version", "state", "valid_until", "document", "changed_at"],
    )


def _age(state: AccountState) -> tuple[str, int]:
    """Return the key that orders states. A restored ledger begins a later epoch."""
    return state.ledger_epoch, state.version


def _scores(state: AccountState) -> tuple[Any, ...]:
    """Return the parts of a state that decide its entries in the sorted sets."""
    return (state.score, state.suspended_until, state.reason, state.capped_projects)


def _feed_fields(state: AccountState) -> tuple[Any, ...]:
    """Return the parts of a state that a gateway must know when they change."""
    return (
        *_scores(state),
        state.state == "unknown",
        state.mode,
        state.resets_at,
        state.valid_until,
        state.allotment_micro,
        state.ledger_epoch,
        state.caps_version,
    )


def _projects_of(states: Sequence[AccountState]) -> list[Project]:
    organizations = {state.organization_id for state in states}
    return list(Project.objects.filter(organization_id__in=organizations).order_by("pk"))


def _write_members(
    states: Sequence[AccountState], projects: Sequence[Project], now: datetime
) -> dict[Account, list[MemberScores]]:
    """Write the rows of the projects' tokens from the states; return the scores for Redis."""
    wanted = {
        (state.resource, project.api_token): (state, project)
        for state in states
        for project in projects
        if project.organization_id == state.organization_id
    }
    present = {
        (row.resource, row.token): row
        for row in SetMember.objects.select_for_update()
        .filter(
            origin=SetMember.Origin.PUBLISHED,
            resource__in={resource for resource, _ in wanted},
            token__in={token for _, token in wanted},
        )
        .order_by("pk")
    }
    rows = []
    pushed: dict[Account, list[MemberScores]] = {}
    for key, (state, project) in wanted.items():
        row = present.get(key) or SetMember(
            resource=key[0], token=key[1], origin=SetMember.Origin.PUBLISHED, version=0
        )
        score = state.score_of(project.pk)
        if score is None:
            row.since = None
        elif row.limited_until is None:
            row.since = now
        row.version += 1
        row.organization_id = project.organization_id
        row.project = project
        row.limited_until = score
        row.suspended_until = state.suspended_until
        row.reason = state.reason_of(project.pk) or ""
        row.changed_at = now
        rows.append(row)
        pushed.setdefault((state.organization_id, state.resource), []).append(_scores_of(row))
    SetMember.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["resource", "token", "origin"],
        update_fields=[
            "organization",
            "project",
            "version",
            "limited_until",
            "suspended_until",
            "reason",
            "since",
            "changed_at",
        ],
    )
    return pushed


def _published(account: Account) -> QuerySet[SetMember]:
    organization, resource = account
    return SetMember.objects.filter(
        organization=organization, resource=resource, origin=SetMember.Origin.PUBLISHED
    )


def _bury(rows: QuerySet[SetMember], now: datetime) -> list[MemberScores]:
    """Turn each row that limits a token into a tombstone; return their scores for Redis."""
    limiting = list(
        rows.select_for_update().exclude(limited_until=None, suspended_until=None).order_by("pk")
    )
    for row in limiting:
        row.version += 1
        row.limited_until = row.suspended_until = row.since = None
        row.changed_at = now
    SetMember.objects.bulk_update(
        limiting, ["version", "limited_until", "suspended_until", "since", "changed_at"]
    )
    return [_scores_of(row) for row in limiting]


def _scores_of(row: SetMember) -> MemberScores:
    return MemberScores(row.token, row.version, row.limited_until, row.suspended_until)


def _push(deltas: Sequence[AccountDelta]) -> None:
    if redis_client.health.is_silent:
        return
    try:
        delta.push(deltas)
    except redis.RedisError as error:
        redis_client.health.failed()
        logger.warning("%d states are left for the reconciler to push: %s", len(deltas), error)

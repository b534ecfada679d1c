"""Where a project stands: read from Redis if it can be trusted, otherwise from the database."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from django.db import Error as DatabaseFailure
from django.utils import timezone

from projects.models import Project
from projects.principal import ProjectIdentity
from quota import caps, decider, metrics
from quota.account_state import AccountState
from quota.models import QuotaState, SetMember
from quota.published import limited_set, manual_blocks
from quota.published.limited_set import Reading, RedisUnavailable
from quota.resources import RESOURCES
from quota.standing import Standing, build_standing, scores_in_database, scores_in_redis

logger = logging.getLogger(__name__)

Source = Literal["redis", "database"]


class QuotaUnknown(Exception):
    """Neither Redis nor the database can answer. Callers must not treat this as "not limited"."""


@dataclass(frozen=True, slots=True)
class Standings:
    """Where one project stands with every resource, at one instant and from one source."""

    now: datetime
    source: Source
    resources: Mapping[str, Standing]


def identify(project: Project) -> ProjectIdentity:
    """Return the identifiers that a read needs."""
    return ProjectIdentity(project.pk, project.api_token, project.organization_id)


def standings(
    identity: ProjectIdentity, *, reading: Reading | None = None, now: datetime | None = None
) -> Standings:
    """Return where the project stands, from Redis or otherwise from the database.

    Pass `reading` if Redis was already read for this project. `now` replaces the clock of the
    store. Raises `QuotaUnknown` if no store can answer.
    """
    if reading is None:
        with suppress(RedisUnavailable):
            reading = limited_set.read(identity.organization_id, identity.api_token)
    if reading is not None and reading.is_complete:
        found = _from_redis(identity, reading, now or reading.now)
        if found is not None:
            return found
    metrics.ANSWERED_FROM_DATABASE.inc()
    try:
        return _from_database(identity, reading, now or timezone.now())
    except DatabaseFailure as error:
        raise QuotaUnknown(f"neither Redis nor the database can answer: {error}") from error


def standings_from_database(
    identity: ProjectIdentity, *, reading: Reading | None = None
) -> Standings:
    """Return where the project stands from the database, plus blocks set by hand in Redis.

    For callers that follow the change feed. The feed is in the database and Redis is updated a
    moment later, so Redis could still answer with the old state. Raises `QuotaUnknown` if the
    database cannot answer.
    """
    if reading is None:
        with suppress(RedisUnavailable):
            reading = limited_set.read(identity.organization_id, identity.api_token)
    try:
        if reading is not None:
            manual_blocks.record_answered(identity.api_token, _by_hand_in_redis(reading))
        return _from_database(identity, reading, timezone.now())
    except DatabaseFailure as error:
        raise QuotaUnknown(f"the database cannot answer: {error}") from error


def _from_redis(identity: ProjectIdentity, reading: Reading, now: datetime) -> Standings | None:
    """Return the standings from Redis, or None if a state is missing there or no longer valid."""
    judged = {}
    for resource, found in reading.resources.items():
        if found.state is None or found.state.is_due(now):
            return None
        scores = scores_in_redis(found, identity.id, now)
        judged[resource] = build_standing(
            identity.organization_id, resource, identity.id, found.state, scores, now
        )
    return Standings(now, "redis", judged)


def _from_database(identity: ProjectIdentity, reading: Reading | None, now: datetime) -> Standings:
    states = _published(identity)
    due_resources = [resource for resource, state in states.items() if state.is_due(now)]
    if due_resources:
        for resource in due_resources:
            _decide_again(identity, resource)
        states = _published(identity)
        if any(state.is_due(now) for state in states.values()):
            raise QuotaUnknown("a state is no longer valid and there is no newer one")
    by_hand = _by_hand(identity, reading)
    judged = {}
    for resource in RESOURCES:
        state = states.get(resource)
        scores = scores_in_database(state, identity.id, by_hand.get(resource), now)
        judged[resource] = build_standing(
            identity.organization_id, resource, identity.id, state, scores, now
        )
    return Standings(now, "database", judged)


def _published(identity: ProjectIdentity) -> dict[str, AccountState]:
    rows = QuotaState.objects.filter(
        organization_id=identity.organization_id, resource__in=RESOURCES
    )
    return {row.resource: row.published for row in rows}


def _decide_again(identity: ProjectIdentity, resource: str) -> None:
    try:
        decider.decide_again(identity.organization_id, resource)
    except DatabaseFailure:
        raise
    except Exception as error:
        logger.exception("an account could not be decided again")
        raise QuotaUnknown("an account could not be decided again") from error


def _by_hand(identity: ProjectIdentity, reading: Reading | None) -> Mapping[str, float | None]:
    """Return the blocks set by hand: from Redis, or as they were last seen there."""
    if reading is not None:
        return _by_hand_in_redis(reading)
    rows = SetMember.objects.filter(
        token=identity.api_token, origin=SetMember.Origin.BY_HAND
    ).values_list("resource", "limited_until")
    return dict(rows)


def _by_hand_in_redis(reading: Reading) -> dict[str, float]:
    return {
        resource: found.score
        for resource, found in reading.resources.items()
        if found.is_by_hand and found.score is not None
    }


@dataclass(frozen=True, slots=True)
class ServiceQuestion:
    """What a gateway asks about: its group (`<name>:<epoch>`) and a call's user, "" if none."""

    group: str
    distinct_id: str = ""


def service_snapshot(project: Project, group: str) -> dict[str, dict[str, Any]]:
    """Return, by resource, what the gateway's group needs to admit calls by itself.

    Amounts are micro-credits. `allotment_micro` is None if the resource is unlimited, and absent
    (unknown) if nothing was decided about it. Raises `QuotaUnknown`.
    """
    found = standings_from_database(identify(project)).resources
    question = ServiceQuestion(group)
    return {
        resource: service_fields(standing, project.pk, question)
        for resource, standing in found.items()
    }


def service_fields(
    standing: Standing, project_id: int, question: ServiceQuestion
) -> dict[str, Any]:
    """Return the fields that only service callers get. Raises `QuotaUnknown`."""
    published = standing.published
    if published is None:
        return {
            "limited": standing.limited,
            "account": standing.account,
            "booked_micro": 0,
            "valid_until": None,
            "ledger_epoch": "",
            "version": 0,
        }
    booked = published.booked.get(question.group, 0)
    allotment = published.allotment_micro
    if allotment is not None:
        allotment -= sum(published.booked.values()) - booked
    fields = {
        "limited": standing.limited,
        "account": published.account,
        "allotment_micro": allotment,
        "booked_micro": booked,
        "valid_until": published.valid_until and published.valid_until.isoformat(),
        "ledger_epoch": published.ledger_epoch,
        "version": published.version,
    }
    try:
        cap_fields = caps.for_gateway(published, project_id, question.distinct_id, question.group)
    except DatabaseFailure as error:
        raise QuotaUnknown(f"the caps cannot be read: {error}") from error
    return fields if cap_fields is None else fields | {"caps": cap_fields}

"""Asking Django about a project's quota, and storing the answer in the gateway's Redis.

The verdict and the account's snapshot are in Redis, where the hold script reads them. A process
itself remembers only who pays for a project, and how many credits a dollar is.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import structlog

from gateway import keys, products
from gateway.errors import Refusal, unavailable
from gateway.network.redis_connection import Redis, Script
from gateway.resolver.tollgate_api import (
    QuotaAnswer,
    ResourceAnswer,
    TollgateApi,
    TollgateUnavailable,
    TollgateUnusable,
)
from gateway.telemetry import metrics

logger = structlog.get_logger("gateway.quota")

TICKET = Script("ticket")
INSTALL = Script("install")
MARK = Script("mark")
FIRST_RETRY = 0.1
LAST_RETRY = 5.0
REPORT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Payer:
    """The account that pays for a project's calls, and how many credits a dollar is there."""

    account: str
    credits_per_usd: Decimal


@dataclass(slots=True)
class _Backoff:
    until: float = 0.0
    delay: float = FIRST_RETRY


class QuotaResolver:
    """Asks Django, stores the answers in Redis, and backs off after failures."""

    def __init__(self, redis: Redis, api: TollgateApi) -> None:
        self._redis = redis
        self._api = api
        self._payers: dict[tuple[int, str], Payer] = {}
        self._asking: dict[tuple[int, str], asyncio.Task[QuotaAnswer]] = {}
        self._backoff: dict[int, _Backoff] = {}
        self._reported: dict[str, float] = {}
        self._reporting: set[asyncio.Task[None]] = set()
        self.group = ""

    async def payer(self, project_id: int, resource: str) -> Payer:
        """Return who pays. Raises a 503 `Refusal` if that is not known."""
        payer = self._payers.get((project_id, resource))
        if payer is None and (project_id, "") not in self._asking:
            payer = await self._remembered_payer(project_id, resource)
        if payer is None:
            if (project_id, resource) not in self._payers:
                await self.ask(project_id)
            payer = self._payers.get((project_id, resource))
        if payer is None:
            raise self._unknown()
        return payer

    async def ask(self, project_id: int, user: str = "") -> None:
        """Ask Django now, once for all who wait. Raises a 503 `Refusal` without a usable answer.

        With a user (a distinct id), also ask what the user may spend. After a failure, callers are
        refused at once until a growing delay has passed.
        """
        task = self._asking.get((project_id, user))
        if task is None:
            backoff = self._backoff.get(project_id)
            if backoff is not None and time.monotonic() < backoff.until:
                raise self._unknown()
            task = self._start(project_id, user)
        try:
            await asyncio.shield(task)
        except (TollgateUnavailable, TollgateUnusable):
            raise self._unknown() from None

    def ask_in_background(self, project_id: int) -> None:
        """Ask Django, unless it is being asked already or has just failed."""
        backoff = self._backoff.get(project_id)
        if (project_id, "") in self._asking or (backoff and time.monotonic() < backoff.until):
            return
        self._start(project_id)

    def _start(self, project_id: int, user: str = "") -> "asyncio.Task[QuotaAnswer]":
        task = asyncio.create_task(self.refresh(project_id, user))
        self._asking[project_id, user] = task
        task.add_done_callback(lambda _: self._asking.pop((project_id, user), None))
        # Those who wait get the exception. If nobody waits, asyncio must not log it.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def refresh(self, project_id: int, user: str = "") -> QuotaAnswer:
        """Ask Django, store and return the answer.

        Raises `TollgateUnavailable` or `TollgateUnusable`.
        """
        ticket, asked_at = await self._redis.run(TICKET, [keys.TICKETS])
        try:
            answer = await self._api.quota(project_id, self.group, user)
            snapshots = {
                resource: _installable(found) for resource, found in answer.limited.items()
            }
        except TollgateUnavailable:
            metrics.RESOLVER_FAILURES.labels("quota", "unavailable").inc()
            self._wait_longer(project_id)
            raise
        except (TollgateUnusable, ValueError, InvalidOperation) as error:
            raise await self._unusable(project_id, str(error)) from None
        self._backoff.pop(project_id, None)
        for resource, found in answer.limited.items():
            _, _, noticed, missing_micro = await self._redis.run(
                INSTALL,
                [
                    keys.project(project_id, resource),
                    keys.account(found.account),
                    keys.PROJECTS,
                    keys.RESYNC,
                ],
                ticket, asked_at, *snapshots[resource], str(project_id), *_caps(found, user),
            )  # fmt: skip
            if noticed == b"outdated":
                why = (
                    f"{found.account} has an older version than before: was the database restored?"
                )
                raise await self._unusable(project_id, why)
            # Only after the answer is installed, because callers that get a payer run the hold
            # script next.
            self._payers[project_id, resource] = Payer(
                found.account, Decimal(str(found.credits_per_usd))
            )
            if noticed == b"booked_more":
                metrics.LOST_DATA.labels("booked_more").inc()
                logger.error("redis lost spending that the ledger has", account=found.account)
            elif noticed == b"restored":
                logger.error(
                    "the restored ledger lacks spending that was delivered before",
                    account=found.account,
                    credits=str(Decimal(missing_micro).scaleb(-6)),
                )
        return answer

    async def _unusable(self, project_id: int, why: str) -> TollgateUnusable:
        """Refuse the project's calls until there is a usable answer; return the error to raise."""
        metrics.RESOLVER_FAILURES.labels("quota", "unusable").inc()
        logger.error("quota answer is not usable", project_id=project_id, error=why)
        self._wait_longer(project_id)
        await self._mark("broken", [project_id])
        return TollgateUnusable(why)

    def report_insufficient(
        self, organization_id: str, resource: str, remaining_micro: int
    ) -> None:
        """Tell Django in the background that what is left of an account can't pay for any call.

        Does so at most every few seconds, because the next refusal reports it again.
        """
        account, now = f"{organization_id}:{resource}", time.monotonic()
        if now - self._reported.get(account, float("-inf")) < REPORT_SECONDS:
            return
        for known in [name for name, at in self._reported.items() if now - at >= REPORT_SECONDS]:
            del self._reported[known]
        self._reported[account] = now
        task = asyncio.create_task(self._report(organization_id, resource, remaining_micro))
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)

    async def _report(self, organization_id: str, resource: str, remaining_micro: int) -> None:
        try:
            await self._api.report_insufficient(organization_id, resource, remaining_micro)
        except TollgateUnavailable:
            metrics.RESOLVER_FAILURES.labels("insufficient_remaining", "unavailable").inc()
        except TollgateUnusable as error:
            metrics.RESOLVER_FAILURES.labels("insufficient_remaining", "unusable").inc()
            logger.error("Django refused a report of an insufficient remainder", error=str(error))

    async def mark_stale(self, project_ids: list[int]) -> None:
        """Mark these projects: their stored verdicts may be outdated."""
        await self._mark("stale", project_ids)

    async def _mark(self, what: str, project_ids: list[int]) -> None:
        resources = {resource for _, resource in self._payers} | set(products.BUCKETS)
        marked = [
            keys.project(project_id, resource)
            for project_id in project_ids
            for resource in sorted(resources)
        ]
        if marked:
            await self._redis.run(MARK, [keys.TICKETS, *marked], what)

    async def _remembered_payer(self, project_id: int, resource: str) -> Payer | None:
        """Return the payer from Redis, where another process may have stored it, or None."""
        raw = await self._redis.execute("HGET", keys.project(project_id, resource), "answer")
        if raw is None:
            return None
        found = msgspec.json.decode(raw, type=ResourceAnswer)
        payer = Payer(found.account, Decimal(str(found.credits_per_usd)))
        self._payers[project_id, resource] = payer
        return payer

    def _wait_longer(self, project_id: int) -> None:
        backoff = self._backoff.setdefault(project_id, _Backoff())
        backoff.until = time.monotonic() + backoff.delay
        backoff.delay = min(backoff.delay * 2, LAST_RETRY)

    @staticmethod
    def _unknown() -> Refusal:
        return unavailable(
            "Your team's credits cannot be checked at the moment. Please try again.",
            "quota_unknown",
        )


def _installable(found: ResourceAnswer) -> tuple[Any, ...]:
    """Return the install script's arguments from the account to the booked amount.

    Raises `ValueError` or `InvalidOperation` if the answer is not usable.
    """
    if Decimal(str(found.credits_per_usd)) <= 0:
        raise ValueError("credits_per_usd must be positive")
    if found.allotment_micro is msgspec.UNSET:
        allotment = "unknown"
    else:
        allotment = "" if found.allotment_micro is None else str(found.allotment_micro)
    return (
        found.account,
        "1" if found.limited else "0",
        _milliseconds(found.limited_until),
        msgspec.json.encode(found),
        "1" if found.mode == "soft" else "0",
        found.ledger_epoch,
        found.version,
        allotment,
        _milliseconds(found.valid_until),
        found.booked_micro,
    )


def _caps(found: ResourceAnswer, user: str) -> list[str | int]:
    """Return the install script's arguments about caps within the account."""
    caps = found.caps
    if caps is None:
        return ["", 0]
    project = any(name.startswith("project:") for name in caps.scopes)
    run = "" if caps.run_micro is None else caps.run_micro
    line = f"{caps.version} {run} {int(project)} {int(caps.users)}"
    arguments: list[str | int] = [line if project or caps.users or run != "" else "", caps.version]
    for name, scope in caps.scopes.items():
        cap = "" if scope.cap_micro is None else scope.cap_micro
        arguments += [
            keys.scope(found.account, name),
            scope.allotment_micro,
            scope.booked_micro,
            cap,
        ]
    if user and f"user:{user}" not in caps.scopes:
        arguments += [keys.scope(found.account, f"user:{user}"), "", 0, ""]
    return arguments


def _milliseconds(instant: str | None) -> str:
    """Return an ISO 8601 instant as Unix time in milliseconds, or "" for None."""
    if instant is None:
        return ""
    return str(int(datetime.fromisoformat(instant).timestamp() * 1000))

"""Parse one delivered event, or say why it can't be booked. Does not use the database.

Everything that affects money (identity, time, project, product, cost, the gateway's debit) must be
valid, or the event is rejected with a reason. Everything that only describes the call is used as
far as possible: a broken model name is no reason to hold back a charge.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any
from uuid import UUID

from billing import products
from billing.credits import InvalidCost, exact_cost

NAME = "$ai_generation"
OLDEST = timedelta(days=366)
NEWEST = timedelta(minutes=10)
"""How far an event's time can lie before and after ours. Beyond that, a clock must be wrong."""

MAXIMUM_DEBIT_MICRO = 2**53

_UUID = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_PROJECT = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,40})?(E-[0-9]{1,2})?", re.ASCII)
_LONGEST_DETAIL = 300
_LARGEST_COUNT = 10**12  # far beyond any call, and sums of millions still fit the column


class QuarantineReason(StrEnum):
    """Why an event is quarantined."""

    NOT_AN_EVENT = "not_an_event"
    EVENT_UNKNOWN = "event_unknown"
    UUID_INVALID = "uuid_invalid"
    TIMESTAMP_INVALID = "timestamp_invalid"
    TIMESTAMP_TOO_OLD = "timestamp_too_old"
    TIMESTAMP_IN_FUTURE = "timestamp_in_future"
    PROJECT_MISSING = "project_missing"
    PROJECT_INVALID = "project_invalid"
    PROJECT_UNKNOWN = "project_unknown"
    ORGANIZATION_MISMATCH = "organization_mismatch"
    ACCOUNT_MISMATCH = "account_mismatch"
    PRODUCT_UNKNOWN = "product_unknown"
    BILLABLE_INVALID = "billable_invalid"
    COST_MISSING = "cost_missing"
    COST_INVALID = "cost_invalid"
    GROUP_INVALID = "group_invalid"
    DEBIT_INVALID = "debit_invalid"
    ACCOUNT_UNDECIDABLE = "account_undecidable"
    CONFLICT = "conflict"
    CORRECTED_EVENT_UNKNOWN = "corrected_event_unknown"
    CORRECTED_EVENT_INVALID = "corrected_event_invalid"
    PROJECT_MISMATCH = "project_mismatch"


class NestedTooDeeply(Exception):
    """The item is nested too deeply to be stored."""


class UnbookableEvent(Exception):
    """Raised for an event that can't be booked, with the reason and a detail for people.

    A long detail is cut to what its column holds.
    """

    def __init__(self, reason: QuarantineReason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail[:_LONGEST_DETAIL]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A valid event.

    `bucket` is None if nobody pays. `adjusts` is the uuid of the event that this one corrects.
    """

    uuid: UUID
    occurred_at: datetime
    project_id: int
    organization_id: UUID | None
    account: str | None
    product: str
    bucket: str | None
    billable: bool
    cost: Decimal
    group: str
    debited_micro: int
    adjusts: UUID | None
    distinct_id: str
    properties: Mapping[str, Any]


def canonical(item: object) -> str:
    """Return the item as ASCII JSON with sorted keys, so equal payloads give equal text.

    Raises `NestedTooDeeply`.
    """
    try:
        return _encode(item)
    except RecursionError as error:
        raise NestedTooDeeply from error


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode


def digest(payload: str) -> str:
    """Return the SHA-256 of a canonical payload."""
    return hashlib.sha256(payload.encode()).hexdigest()


def claimed_uuid(item: object) -> UUID | None:
    """Return the uuid of an item, even if the rest of it is broken."""
    return uuid_or_none(item.get("uuid")) if isinstance(item, dict) else None


def corrected_uuid(item: object) -> UUID | None:
    """Return the uuid of the event that an item corrects, if any."""
    return uuid_or_none(item.get("hold_id")) if isinstance(item, dict) else None


def read(item: object, now: datetime) -> Event:
    """Return the event that an item describes. Raises `UnbookableEvent`."""
    if not isinstance(item, dict):
        raise UnbookableEvent(QuarantineReason.NOT_AN_EVENT, "an event is an object")
    if item.get("event", NAME) != NAME:
        raise UnbookableEvent(QuarantineReason.EVENT_UNKNOWN, f"only {NAME} is metered")
    uuid = uuid_or_none(item.get("uuid"))
    if uuid is None:
        raise UnbookableEvent(QuarantineReason.UUID_INVALID)
    properties = item.get("properties")
    if not isinstance(properties, dict):
        raise UnbookableEvent(QuarantineReason.NOT_AN_EVENT, "properties is an object")
    product, bucket, billable = _product(properties)
    adjusts = _adjusts(item, uuid)
    group, debited_micro = _debit(item, bucket, adjusts)
    return Event(
        uuid=uuid,
        occurred_at=_occurred_at(item.get("timestamp"), now),
        project_id=_project_id(properties),
        organization_id=_organization_id(properties),
        account=_account(item),
        product=product,
        bucket=bucket,
        billable=billable,
        cost=_cost(properties, adjusts),
        group=group,
        debited_micro=debited_micro,
        adjusts=adjusts,
        distinct_id=text(item.get("distinct_id"), 200),
        properties=properties,
    )


def text(value: object, longest: int) -> str:
    """Return a text in a form that a column can hold, empty if the value isn't a text."""
    if not isinstance(value, str):
        return ""
    if value.isascii() and "\0" not in value:
        return value[:longest]
    # PostgreSQL can't store NUL or lone surrogates.
    printable = value.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return printable[:longest]


def count(value: object) -> int | None:
    """Return a number of tokens, None if the value isn't one."""
    if type(value) is int and 0 <= value <= _LARGEST_COUNT:
        return value
    return None


def milliseconds(seconds: object) -> int | None:
    """Return a duration in whole milliseconds, None if the value isn't one."""
    # In the payloads of quarantined events, a fraction is stored as text.
    if type(seconds) is int or (isinstance(seconds, str) and _SECONDS.fullmatch(seconds)):
        seconds = Decimal(seconds)
    if not isinstance(seconds, Decimal) or not 0 <= seconds < 10**9:
        return None
    return round(seconds * 1000)


def uuid_or_none(value: object) -> UUID | None:
    """Return a UUID from text, with or without hyphens, None if the value isn't one."""
    return _uuid(value) if isinstance(value, str) else None


@lru_cache(maxsize=1024)
def _uuid(text: str) -> UUID | None:
    # Cached because the events of a batch repeat organizations, runs and holds.
    return UUID(text) if _UUID.fullmatch(text) else None


def http_status(value: object) -> int | None:
    """Return an HTTP status, None if the value isn't one."""
    return value if type(value) is int and 100 <= value <= 999 else None


def _occurred_at(value: object, now: datetime) -> datetime:
    try:
        occurred_at = datetime.fromisoformat(value)  # type: ignore[arg-type]
        if occurred_at.tzinfo is None:
            occurred_at = occurred_at.replace(tzinfo=UTC)
        if occurred_at < now - OLDEST:
            raise UnbookableEvent(QuarantineReason.TIMESTAMP_TOO_OLD, occurred_at.isoformat())
        if occurred_at > now + NEWEST:
            raise UnbookableEvent(QuarantineReason.TIMESTAMP_IN_FUTURE, occurred_at.isoformat())
        return occurred_at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise UnbookableEvent(QuarantineReason.TIMESTAMP_INVALID, "not an ISO 8601 time") from None


def _product(properties: Mapping[str, Any]) -> tuple[str, str | None, bool]:
    """Return the product, the bucket that pays for this event, and whether it is billable."""
    named = properties.get("ai_product")
    product = products.canonical(named) if isinstance(named, str) else None
    if product is None:
        raise UnbookableEvent(QuarantineReason.PRODUCT_UNKNOWN, text(named, 100))
    bucket = products.BUCKETS[product]
    billable = properties.get("$ai_billable", bucket is not None)
    if not isinstance(billable, bool):
        raise UnbookableEvent(QuarantineReason.BILLABLE_INVALID, "$ai_billable is true or false")
    return product, bucket if billable else None, billable and bucket is not None


def _project_id(properties: Mapping[str, Any]) -> int:
    value = properties.get("project_id")
    if value is None or value == "":
        raise UnbookableEvent(QuarantineReason.PROJECT_MISSING)
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str) or not _PROJECT.fullmatch(value):
        raise UnbookableEvent(QuarantineReason.PROJECT_INVALID, "a project is a positive number")
    return int(value)


def _organization_id(properties: Mapping[str, Any]) -> UUID | None:
    value = properties.get("organization_id")
    if value is None:
        return None
    organization_id = uuid_or_none(value)
    if organization_id is None:
        raise UnbookableEvent(
            QuarantineReason.ORGANIZATION_MISMATCH, "organization_id is not a UUID"
        )
    return organization_id


def _account(item: Mapping[str, Any]) -> str | None:
    value = item.get("account")
    if value is not None and not isinstance(value, str):
        raise UnbookableEvent(QuarantineReason.ACCOUNT_MISMATCH, "account is not a string")
    return value or None


def _cost(properties: Mapping[str, Any], adjusts: UUID | None) -> Decimal:
    value = properties.get("$ai_total_cost_usd")
    if value is None:
        raise UnbookableEvent(QuarantineReason.COST_MISSING, "$ai_total_cost_usd is missing")
    try:
        cost = exact_cost(value)
    except InvalidCost as error:
        raise UnbookableEvent(QuarantineReason.COST_INVALID, str(error)) from None
    if cost < 0 and adjusts is None:
        raise UnbookableEvent(QuarantineReason.COST_INVALID, "only a correction can be negative")
    return cost


def _adjusts(item: Mapping[str, Any], uuid: UUID) -> UUID | None:
    """Return the uuid of the event that this one corrects, None if it isn't a correction.

    A hold has the uuid of its event. An event with the hold of another event corrects that event.
    """
    value = item.get("hold_id")
    if value is None:
        return None
    hold_id = uuid_or_none(value)
    if hold_id is None:
        raise UnbookableEvent(QuarantineReason.GROUP_INVALID, "hold_id is not a UUID")
    return None if hold_id == uuid else hold_id


def _debit(item: Mapping[str, Any], bucket: str | None, adjusts: UUID | None) -> tuple[str, int]:
    """Return the group that held the call and what it debited, or `("", 0)` without a group."""
    group = item.get("group")
    debited = item.get("debited_micro")
    if group is None or group == "":
        if debited:
            raise UnbookableEvent(QuarantineReason.GROUP_INVALID, "a debit names its group")
        return "", 0
    if not isinstance(group, str) or len(group) > 100 or not group.isascii() or "\0" in group:
        raise UnbookableEvent(QuarantineReason.GROUP_INVALID, "a group is a short ASCII text")
    if type(debited) is not int or abs(debited) > MAXIMUM_DEBIT_MICRO:
        raise UnbookableEvent(QuarantineReason.DEBIT_INVALID, "debited_micro is a whole number")
    if debited < 0 and adjusts is None:
        raise UnbookableEvent(QuarantineReason.DEBIT_INVALID, "only a correction can be negative")
    if debited and bucket is None:
        raise UnbookableEvent(
            QuarantineReason.DEBIT_INVALID, "an event that nobody pays for has no debit"
        )
    return group, debited

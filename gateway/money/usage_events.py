"""The `$ai_generation` event that billing books, and the record in a hold to create it from."""

import uuid
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from typing import Any, Self

import msgspec

from gateway.body.requests import ModelRequest
from gateway.call import Call
from gateway.kept_answers import step_id
from gateway.metering.usage import Usage
from gateway.products import Product
from gateway.resolver.credentials import Caller
from gateway.settings import MICRO

_CORRECTION = uuid.UUID("6f0c1f0e-4a5c-4d0a-9a35-3f7ad1b1b7c2")


class CallRecord(msgspec.Struct, frozen=True, gc=False):
    """What is known about a call before it is made."""

    uuid: str
    timestamp: str
    distinct_id: str
    product: str
    billable: bool
    model: str
    provider: str
    stream: bool
    trace_id: str
    organization_id: str
    project_id: int
    task_run_id: str | None
    price_version: str
    bound_usd: str
    step_id: str | None = None

    @classmethod
    def decode(cls, record: str | bytes) -> Self:
        """Return the record that `encode` wrote."""
        return msgspec.json.decode(record, type=cls)

    def encode(self) -> bytes:
        """Return the record as JSON, for the hold."""
        return msgspec.json.encode(self)


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How a call ended. `cost` is in dollars. `usage` has what is known.

    `status` is 0 if the provider gave no answer.
    """

    cost: Decimal
    usage: Usage
    status: int
    is_error: bool
    estimated: bool
    latency: float
    price_version: str


def new_record(
    call: Call,
    caller: Caller,
    product: Product,
    request: ModelRequest,
    price_version: str,
    bound: Decimal,
) -> CallRecord:
    """Return the record of a call that is about to be made."""
    return CallRecord(
        uuid=call.call_id,
        timestamp=datetime.now(UTC).isoformat(),
        distinct_id=caller.distinct_id,
        product=product.name,
        billable=product.billable,
        model=request.model,
        provider=request.api.provider,
        stream=request.stream,
        trace_id=_trace_id(call),
        organization_id=caller.organization_id,
        project_id=caller.project_id,
        task_run_id=caller.task_run_id,
        price_version=price_version,
        bound_usd=_decimal(bound),
        step_id=step_id(call),
    )


def _trace_id(call: Call) -> str:
    """Return the id of the call's trace: ours, the caller's `traceparent`, or else the call's id.

    https://www.w3.org/TR/trace-context/
    """
    traced = call.trace.trace_id()
    if traced is not None:
        return traced
    header = call.headers.get(b"traceparent")
    if header is not None:
        parts = header.split(b"-")
        if len(parts) == 4 and len(parts[1]) == 32 and parts[1].isalnum():
            return parts[1].decode()
    return call.call_id


def to_micro(cost: Decimal, credits_per_usd: Decimal) -> int:
    """Return dollars as micro-credits, rounded once, half to even, as billing does."""
    return int((cost * credits_per_usd * MICRO).to_integral_value(ROUND_HALF_EVEN))


def to_micro_bound(cost: Decimal, credits_per_usd: Decimal) -> int:
    """Return dollars as micro-credits, rounded up, so that an upper bound stays one."""
    return int((cost * credits_per_usd * MICRO).to_integral_value(ROUND_CEILING))


def event(
    record: CallRecord, outcome: Outcome, *, account: str, group: str, debited_micro: int
) -> bytes:
    """Return the event of a finished call."""
    usage = outcome.usage
    return _encode(
        record,
        record.uuid,
        account,
        group,
        debited_micro,
        {
            "$ai_input_tokens": usage.input,
            "$ai_output_tokens": usage.output,
            "$ai_cache_read_input_tokens": usage.cache_read,
            "$ai_cache_creation_input_tokens": usage.cache_write,
            "$ai_cache_creation_5m_input_tokens": usage.cache_write_5m,
            "$ai_cache_creation_1h_input_tokens": usage.cache_write_1h,
            "$ai_web_search_count": usage.web_searches,
            "$ai_total_cost_usd": _decimal(outcome.cost),
            "$ai_latency": round(outcome.latency, 3),
            "$ai_is_error": outcome.is_error,
            "$ai_http_status": outcome.status or None,
            "$ai_usage_estimated": outcome.estimated,
            "$ai_service_tier": usage.service_tier,
            "price_version": outcome.price_version,
        },
    )


def estimated_event(record: CallRecord, bound_micro: int, account: str, group: str) -> bytes:
    """Return the event of a call whose end is unknown. It costs the bound of its hold."""
    return _encode(
        record,
        record.uuid,
        account,
        group,
        bound_micro,
        {
            "$ai_input_tokens": 0,
            "$ai_output_tokens": 0,
            "$ai_cache_read_input_tokens": 0,
            "$ai_cache_creation_input_tokens": 0,
            "$ai_total_cost_usd": record.bound_usd,
            "$ai_latency": None,
            "$ai_is_error": True,
            "$ai_http_status": None,
            "$ai_usage_estimated": True,
            "$ai_service_tier": None,
            "price_version": record.price_version,
        },
    )


def correction(
    record: CallRecord,
    outcome: Outcome,
    *,
    account: str,
    group: str,
    debited_micro: int,
    bound_micro: int,
) -> tuple[str, int, bytes]:
    """Return id, debit and event that correct an estimated booking to the real cost."""
    correction_id = str(uuid.uuid5(_CORRECTION, record.uuid))
    difference = outcome.cost - Decimal(record.bound_usd)
    debit = debited_micro - bound_micro
    data = _encode(
        record,
        correction_id,
        account,
        group,
        debit,
        {
            "$ai_input_tokens": outcome.usage.input,
            "$ai_output_tokens": outcome.usage.output,
            "$ai_cache_read_input_tokens": outcome.usage.cache_read,
            "$ai_cache_creation_input_tokens": outcome.usage.cache_write,
            "$ai_web_search_count": outcome.usage.web_searches,
            "$ai_total_cost_usd": _decimal(difference),
            "$ai_latency": round(outcome.latency, 3),
            "$ai_is_error": outcome.is_error,
            "$ai_http_status": outcome.status or None,
            "$ai_usage_estimated": outcome.estimated,
            "$ai_service_tier": outcome.usage.service_tier,
            "price_version": outcome.price_version,
        },
        hold_id=record.uuid,
    )
    return correction_id, debit, data


def _encode(
    record: CallRecord,
    event_id: str,
    account: str,
    group: str,
    debited_micro: int,
    properties: dict[str, Any],
    hold_id: str | None = None,
) -> bytes:
    """Return an event as JSON. An event with `hold_id` corrects the booking of that hold."""
    return msgspec.json.encode(
        {
            "uuid": event_id,
            "event": "$ai_generation",
            "timestamp": record.timestamp,
            "distinct_id": record.distinct_id,
            "properties": {
                "$ai_billable": record.billable,
                "ai_product": record.product,
                "$ai_model": record.model,
                "$ai_provider": record.provider,
                "$ai_stream": record.stream,
                "$ai_trace_id": record.trace_id,
                "organization_id": record.organization_id,
                "project_id": record.project_id,
                "task_run_id": record.task_run_id,
                "step_id": record.step_id,
                **properties,
            },
            "account": account or None,
            "group": group,
            "hold_id": hold_id or event_id,
            "debited_micro": debited_micro,
        }
    )


def _decimal(value: Decimal) -> str:
    """Return a decimal without an exponent, which billing would not read."""
    return format(value.normalize() if value else Decimal(0), "f")

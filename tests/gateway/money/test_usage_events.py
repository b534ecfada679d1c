"""The events that billing books: those of calls, of lost calls, and corrections."""

import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from gateway.metering.usage import Usage
from gateway.money.usage_events import (
    CallRecord,
    Outcome,
    correction,
    estimated_event,
    event,
    new_record,
)
from tests.gateway.money.test_components import RECORD

ACCOUNT, GROUP, TRACE = (
    "organization:ai_credits",
    "gateway:epoch",
    "4bf92f3577b34da6a3ce929d0e0e4736",
)
RECORDED = msgspec.convert({**RECORD, "bound_usd": "0.5"}, CallRecord)


def outcome(**more: Any) -> Outcome:
    known = {"cost": Decimal("0.2"), "usage": Usage(10, output=2), "status": 200}
    ended = {"is_error": False, "estimated": False, "latency": 1.23456, "price_version": "v"}
    return Outcome(**known | ended | more)


def recorded(traced: str | None = None, header: bytes | None = None) -> CallRecord:
    """Return the record of a call with this trace of ours, and this `traceparent`."""
    headers = {} if header is None else {b"traceparent": header}
    call: Any = SimpleNamespace(
        call_id="call", headers=headers, raw_headers=[*headers.items()],
        trace=SimpleNamespace(trace_id=lambda: traced),
    )  # fmt: skip
    caller: Any = SimpleNamespace(
        distinct_id="ann", organization_id="organization", project_id=7, task_run_id="run"
    )
    product: Any = SimpleNamespace(name="slack_app", billable=True)
    request: Any = SimpleNamespace(
        model="claude", api=SimpleNamespace(provider="anthropic"), stream=True
    )
    return new_record(call, caller, product, request, "v", Decimal("0.50"))


def test_a_record_says_who_calls_and_what_it_may_cost_and_survives_a_restart() -> None:
    record = CallRecord.decode(recorded().encode())
    known = msgspec.structs.asdict(record)
    assert known.pop("timestamp")
    assert known == {
        "uuid": "call", "distinct_id": "ann", "product": "slack_app", "billable": True,
        "model": "claude", "provider": "anthropic", "stream": True, "trace_id": "call",
        "organization_id": "organization", "project_id": 7, "task_run_id": "run",
        "price_version": "v", "bound_usd": "0.5", "step_id": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("traced", "header", "trace_id"),
    [
        ("ours", f"00-{TRACE}-00f067aa0ba902b7-01", "ours"),
        (None, f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (None, f"00-{TRACE}-00f067aa0ba902b7", "call"),
        (None, f"00-{TRACE}-00f067aa0ba902b7-01-more", "call"),
        (None, f"00-{TRACE}0-00f067aa0ba902b7-01", "call"),
        (None, f"00-{TRACE[1:]}-00f067aa0ba902b7-01", "call"),
        (None, f"00-{TRACE[1:]}'-00f067aa0ba902b7-01", "call"),
        (None, None, "call"),
    ],
)
def test_the_trace_is_ours_or_the_callers_or_the_call_itself(traced, header, trace_id) -> None:
    assert recorded(traced, header and header.encode()).trace_id == trace_id


def test_a_call_whose_end_is_unknown_costs_its_bound_and_says_that_this_is_an_estimate() -> None:
    data = json.loads(estimated_event(RECORDED, 60_000_000, ACCOUNT, GROUP))
    assert (data["uuid"], data["hold_id"], data["debited_micro"]) == ("u", "u", 60_000_000)
    assert (data["account"], data["group"]) == (ACCOUNT, GROUP)
    properties = data["properties"]
    assert properties["$ai_total_cost_usd"] == "0.5"
    assert (properties["$ai_usage_estimated"], properties["$ai_is_error"]) == (True, True)
    assert {
        properties[f"$ai_{kind}_tokens"]
        for kind in ("input", "output", "cache_read_input", "cache_creation_input")
    } == {0}


@pytest.mark.parametrize(("status", "written"), [(200, 200), (0, None)])
def test_an_event_has_the_status_and_the_latency_in_milliseconds(status, written) -> None:
    ended = outcome(status=status)
    _, _, corrected = correction(
        RECORDED, ended, account=ACCOUNT, group=GROUP, debited_micro=1, bound_micro=2
    )
    for data in (event(RECORDED, ended, account="", group="", debited_micro=0), corrected):
        properties = json.loads(data)["properties"]
        assert (properties["$ai_http_status"], properties["$ai_latency"]) == (written, 1.235)


def test_a_correction_turns_the_bound_into_the_cost() -> None:
    correction_id, debit, data = correction(
        RECORDED, outcome(), account=ACCOUNT, group=GROUP, debited_micro=24, bound_micro=60
    )
    corrected = json.loads(data)
    assert (corrected["uuid"], corrected["hold_id"]) == (correction_id, "u")
    assert correction_id != "u"
    assert corrected["properties"]["$ai_total_cost_usd"] == "-0.3"
    assert debit == corrected["debited_micro"] == -36
    again, _, _ = correction(
        RECORDED, outcome(), account=ACCOUNT, group=GROUP, debited_micro=24, bound_micro=60
    )
    assert again == correction_id, "booked twice, it counts once"

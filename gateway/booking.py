"""Deciding what a call cost, and booking that: once, durably, together with its event."""

import time
from decimal import Decimal
from typing import Literal

import msgspec
import structlog
from msgspec.structs import replace

from gateway.admission import Admission
from gateway.metering import Meter
from gateway.metering.token_estimates import BYTES_PER_TOKEN
from gateway.metering.usage import Usage
from gateway.money.charges import Limits, charge
from gateway.money.holds import Holds, Settlement
from gateway.money.prices import DEAREST_REGION, Prices
from gateway.money.usage_events import Outcome, correction, event, to_micro
from gateway.settings import MICRO
from gateway.telemetry import metrics

logger = structlog.get_logger("gateway.booking")

# What the booking is based on: the usage that the provider reported, an estimate from the text that
# passed, or the most that the call can have cost.
Basis = Literal["reported", "text", "bound"]


class Ending(msgspec.Struct, gc=False):
    """How the exchange with the provider went. `status` is 0 until the provider answers.

    - `sent`: at least a part of the request was sent.
    - `failed`: the exchange broke off.
    - `given_up`: the gateway stopped waiting, so the provider may charge for a complete answer.
    - `compressed`: the answer is compressed, although compression was not requested.
    """

    began: float
    status: int = 0
    sent: bool = False
    failed: bool = False
    given_up: bool = False
    compressed: bool = False


class Settler:
    """Decides what each call cost and settles its hold."""

    def __init__(self, holds: Holds, prices: Prices) -> None:
        self._holds = holds
        self._prices = prices
        self.group = ""

    async def settle(self, admission: Admission, meter: Meter, ending: Ending) -> Outcome:
        """Book a call; return what was booked. Raises nothing if Redis is down."""
        outcome = self.outcome(admission, meter, ending)
        record, account, group = admission.record, admission.account, self.group
        cost = to_micro(outcome.cost, admission.credits_per_usd)
        if record.billable:
            metrics.child(metrics.SETTLED, record.product).inc(cost / MICRO)
            if cost > admission.bound_micro:
                metrics.OVERRUN.inc((cost - admission.bound_micro) / MICRO)
                logger.error("cost exceeds its bound", hold_id=record.uuid, model=record.model)
        basis, why = basis_of(meter, ending)
        if basis != "reported":
            metrics.child(metrics.ESTIMATED, why).inc()
        if basis == "text" and record.billable:
            metrics.UNCERTAIN.inc(max(0, admission.bound_micro - cost) / MICRO)

        def correct() -> Settlement:
            correction_id, debit, data = correction(
                record,
                outcome,
                account=account,
                group=group,
                debited_micro=cost,
                bound_micro=admission.bound_micro,
            )
            return Settlement(correction_id, "force", debit, data, account, group)

        data = event(record, outcome, account=account, group=group, debited_micro=cost)
        mode: Literal["hold", "force"] = "hold" if record.billable else "force"
        await self._holds.settle(Settlement(record.uuid, mode, cost, data, account, group, correct))
        return outcome

    def release(self, admission: Admission) -> None:
        """Release the hold of a call that was not made."""
        if admission.record.billable:
            self._holds.release(admission.record.uuid)

    def outcome(self, admission: Admission, meter: Meter, ending: Ending) -> Outcome:
        """Return what to book, in dollars and tokens."""
        basis, _ = basis_of(meter, ending)
        usage = Usage()
        if basis == "reported":
            usage = _as_asked(meter.usage() or Usage(), admission.asked)
        elif basis == "text":
            usage = _as_asked(_estimate(admission, meter), admission.asked)
        if admission.rates is None:
            cost, version = Decimal(0), "unknown"
        elif basis == "bound":
            cost, version = admission.bound, admission.rates.version
        else:
            cost, version = self._price(admission, meter, usage, basis)
        return Outcome(
            cost=cost,
            usage=usage.total(),
            status=ending.status,
            is_error=ending.failed or meter.failed or not meter.complete or not _answered(ending),
            estimated=basis != "reported",
            latency=time.perf_counter() - ending.began,
            price_version=version,
        )

    def _price(
        self, admission: Admission, meter: Meter, usage: Usage, basis: Basis
    ) -> tuple[Decimal, str]:
        """Return the price of a usage in dollars, and the version of the price list."""
        usual = admission.rates
        assert usual is not None
        rates = usual
        limits = None
        if basis == "text":
            if usage.service_tier is None:  # it may have been any tier
                rates = admission.dearest or usual
            if admission.record.billable:
                if admission.record.provider == "anthropic" and usage.inference_geo is None:
                    usage = replace(usage, inference_geo=DEAREST_REGION)  # it may have been any
                # If the input was not reported, it is booked at its bound.
                input_cost = None if _is_input_reported(meter) else admission.input_bound
                limits = Limits(input_cost, admission.bound)
        return charge(
            self._prices,
            admission.record,
            rates,
            usage,
            admission.tools,
            free_code=admission.filtered,
            limits=limits,
        )


def basis_of(meter: Meter, ending: Ending) -> tuple[Basis, str]:
    """Return the basis of the booking, and the reason if it is not the reported usage.

    `docs/gateway.md` shows this function as a table: "What is booked when a call does not end
    well".
    """
    if not ending.status:
        if not ending.sent:
            return "reported", ""  # nothing was reported, and nothing is owed
        return "bound", "given_up" if ending.given_up else "no_answer"
    if not _answered(ending) or meter.complete:
        return "reported", ""
    if ending.compressed:
        return "bound", "compressed"
    if meter.failed:
        if not (meter.unreported_output or meter.tools_ran or meter.unreadable):
            return "reported", ""  # an error costs the usage it reports, which may be none
        return "text", "error_after_text"
    if ending.given_up:
        return "bound", "given_up"
    if not meter.streamed:
        return "bound", "usage_unreadable" if meter.finished or meter.unreadable else "broken_off"
    if ending.failed:
        return "text", "broken_off"
    return "text", "usage_unreadable" if meter.unreadable else "usage_missing"


def _answered(ending: Ending) -> bool:
    return 200 <= ending.status < 300


def _estimate(admission: Admission, meter: Meter) -> Usage:
    """Estimate the usage from what was reported and from the text that passed."""
    usage = meter.used_so_far()
    if not _is_input_reported(meter):
        size = admission.size
        # Each token has at least one byte. For calls that nobody pays for, use the average size.
        usage = replace(usage, input=size if admission.account else size // BYTES_PER_TOKEN)
    return replace(usage, output=usage.output + meter.unreported_output)


def _is_input_reported(meter: Meter) -> bool:
    """Return whether the input was reported. Zero before the end is only a placeholder."""
    return meter.input_reported and meter.used_so_far().all_input > 0


def _as_asked(usage: Usage, asked: Usage) -> Usage:
    """Return the usage, with tier, speed and region as asked for if they were not reported."""
    tier = asked.service_tier if asked.service_tier != "auto" else None
    return replace(
        usage,
        service_tier=usage.service_tier or tier,
        fast=(asked.fast or None) if usage.fast is None else usage.fast,
        inference_geo=usage.inference_geo or asked.inference_geo,
    )

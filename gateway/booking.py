"""What a call cost in the end, and booking it: once, durably, with its event."""

import time
from decimal import Decimal
from typing import Literal

import msgspec
import structlog
from msgspec.structs import replace

from gateway import metrics
from gateway.admission import Admission
from gateway.charges import charge
from gateway.holds import Holds, Settlement
from gateway.metering import BYTES_PER_TOKEN, Meter
from gateway.prices import Prices, Usage
from gateway.settings import MICRO
from gateway.usage_events import Outcome, correction, event, to_micro

logger = structlog.get_logger("gateway.booking")


class Ending(msgspec.Struct, gc=False):
    """How the exchange with the provider went. `status` is 0 until the provider answered.

    `failed`: it did not come to its end. `given_up`: nobody waited for that end any longer, so that
    the provider may have done, and may charge, all that was asked of it. `abandoned`: it was the
    caller who did not take the answer. `unreadable`: it is compressed, although that was not asked
    for.
    """

    began: float
    status: int = 0
    failed: bool = False
    given_up: bool = False
    abandoned: bool = False
    unreadable: bool = False


class Books:
    """Turns endings into settlements."""

    def __init__(self, holds: Holds, prices: Prices) -> None:
        self._holds = holds
        self._prices = prices
        self.group = ""

    async def settle(self, admission: Admission, meter: Meter, ending: Ending) -> Outcome:
        """Book a call; return what as. Never raises for want of a store: see `Holds.settle`."""
        outcome = self._outcome(admission, meter, ending)
        record, account, group = admission.record, admission.account, self.group
        cost = to_micro(outcome.cost, admission.credits_per_usd)
        if record.billable:
            metrics.child(metrics.SETTLED, record.product).inc(cost / MICRO)
            if cost > admission.bound_micro:
                metrics.OVERRUN.inc((cost - admission.bound_micro) / MICRO)
                logger.error("cost exceeds its bound", hold_id=record.uuid, model=record.model)
        if outcome.estimated:
            metrics.child(metrics.ESTIMATED, "call_broken_off").inc()

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
        """Book nothing of a call that was not made."""
        if admission.record.billable:
            self._holds.release(admission.record.uuid)

    def _outcome(self, admission: Admission, meter: Meter, ending: Ending) -> Outcome:
        """Decide what is booked: what the provider told, else an estimate, at most the bound."""
        usage = meter.usage()
        answered = ending.status and ending.status < 400
        unfinished = bool(answered and not (usage and meter.finished))
        # What was not read to its end may hide any amount of reasoning, and tell no input.
        whole_bound = ending.given_up and (not ending.status or (unfinished and ending.abandoned))
        whole_bound = whole_bound or (unfinished and ending.unreadable)
        estimated = whole_bound or unfinished
        if whole_bound:
            usage = Usage()
        elif estimated:
            usage = _estimate(usage, admission, meter)
        usage = usage or Usage()  # an error, for which the provider charges nothing it does not say
        if admission.rates is None:
            cost, version = Decimal(0), "unknown"
        elif whole_bound:
            cost, version = admission.bound, admission.rates.version
        else:
            cost, version = charge(
                self._prices,
                admission.record,
                admission.rates,
                usage,
                admission.tools,
                free_code=admission.filtered,
            )
            if estimated and admission.record.billable:
                cost = min(cost, admission.bound)
        return Outcome(
            cost=cost,
            usage=usage.together(),
            status=ending.status,
            is_error=ending.failed or meter.failed or not meter.finished or not answered,
            estimated=estimated,
            latency=time.perf_counter() - ending.began,
            price_version=version,
        )


def _estimate(usage: Usage | None, admission: Admission, meter: Meter) -> Usage:
    """Estimate what the provider will charge for an answer that was broken off."""
    output = meter.output_estimate()
    if usage is None:
        return Usage(input=admission.size // BYTES_PER_TOKEN, output=output)
    return replace(usage, output=max(usage.output, output))

"""The interface of a call's trace, and one that does nothing, for gateways without tracing.

`opentelemetry.py` implements it and is imported only if traces are configured.
"""

from contextlib import AbstractContextManager, nullcontext
from decimal import Decimal
from typing import Protocol

from gateway.apis import Api
from gateway.metering.usage import Usage
from gateway.network.headers import Headers


class TracedCall(Protocol):
    """What a trace reads of a call. It replaces `raw_headers`, to let the provider continue it."""

    raw_headers: Headers
    call_id: str
    product: str
    api: str
    status: int
    reason: str | None

    @property
    def started(self) -> bool:
        """Whether the answer was started."""


class Trace(Protocol):
    """The trace of one call."""

    def identified(self, organization_id: str, project_id: int, task_run_id: str | None) -> None:
        """Record who calls."""

    def holding(self) -> AbstractContextManager[object]:
        """Return a context for the reservation."""

    def held(self, micro: int) -> None:
        """Record what was reserved, in micro-credits."""

    def upstream(
        self, call: TracedCall, api: Api, model: str | None, output_tokens: int | None
    ) -> AbstractContextManager[object]:
        """Return a context for the exchange with the provider, whose headers continue the trace."""

    def settling(self) -> AbstractContextManager[object]:
        """Return a context for the settlement."""

    def settled(self, usage: Usage, cost: Decimal, *, estimated: bool) -> None:
        """Record what was used, and what it cost in dollars."""

    def trace_id(self) -> str | None:
        """Return the id of the trace for the event, or None to use the caller's."""

    def end(self, call: TracedCall) -> None:
        """Record how the call ended."""


_NOTHING = nullcontext()


class NoTrace:
    """A trace that records nothing."""

    def identified(self, organization_id: str, project_id: int, task_run_id: str | None) -> None:
        """Do nothing."""

    def holding(self) -> AbstractContextManager[object]:
        """Return a context that does nothing."""
        return _NOTHING

    def held(self, micro: int) -> None:
        """Do nothing."""

    def upstream(
        self, call: TracedCall, api: Api, model: str | None, output_tokens: int | None
    ) -> AbstractContextManager[object]:
        """Return a context that does nothing."""
        return _NOTHING

    def settling(self) -> AbstractContextManager[object]:
        """Return a context that does nothing."""
        return _NOTHING

    def settled(self, usage: Usage, cost: Decimal, *, estimated: bool) -> None:
        """Do nothing."""

    def trace_id(self) -> str | None:
        """Return None."""
        return None

    def end(self, call: TracedCall) -> None:
        """Do nothing."""


NO_TRACE = NoTrace()

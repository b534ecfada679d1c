"""The interface of a call's trace, and one that does nothing, for gateways without tracing.

`tracing.py` implements it with OpenTelemetry and is imported only if traces are configured.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.apis import Api
    from gateway.call import Call
    from gateway.money.usage_events import Outcome
    from gateway.refusals.admission import Admission
    from gateway.resolver.credentials import Caller


class Trace(Protocol):
    """The trace of one call."""

    def identified(self, caller: "Caller") -> None:
        """Record who calls."""

    def holding(self) -> AbstractContextManager[object]:
        """Return a context for the reservation."""

    def held(self, admission: "Admission") -> None:
        """Record what was reserved."""

    def upstream(
        self, call: "Call", api: "Api", model: str | None, output_tokens: int | None
    ) -> AbstractContextManager[object]:
        """Return a context for the exchange with the provider, whose headers continue the trace."""

    def settling(self) -> AbstractContextManager[object]:
        """Return a context for the settlement."""

    def settled(self, outcome: "Outcome") -> None:
        """Record what was used, and what it cost."""

    def trace_id(self) -> str | None:
        """Return the id of the trace for the event, or None to use the caller's."""

    def end(self, call: "Call") -> None:
        """Record how the call ended."""


_NOTHING = nullcontext()


class NoTrace:
    """A trace that records nothing."""

    def identified(self, caller: "Caller") -> None:
        """Do nothing."""

    def holding(self) -> AbstractContextManager[object]:
        """Return a context that does nothing."""
        return _NOTHING

    def held(self, admission: "Admission") -> None:
        """Do nothing."""

    def upstream(
        self, call: "Call", api: "Api", model: str | None, output_tokens: int | None
    ) -> AbstractContextManager[object]:
        """Return a context that does nothing."""
        return _NOTHING

    def settling(self) -> AbstractContextManager[object]:
        """Return a context that does nothing."""
        return _NOTHING

    def settled(self, outcome: "Outcome") -> None:
        """Do nothing."""

    def trace_id(self) -> str | None:
        """Return None."""
        return None

    def end(self, call: "Call") -> None:
        """Do nothing."""


NO_TRACE = NoTrace()

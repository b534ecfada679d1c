"""The points of a call at which a trace is told something; without tracing, nothing happens there.

`tracing.py` implements them with OpenTelemetry and is imported only where traces are configured.
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
        """Tell who calls."""

    def holding(self) -> AbstractContextManager[object]:
        """Surround the reservation."""

    def held(self, admission: "Admission") -> None:
        """Tell what was reserved."""

    def upstream(
        self, call: "Call", api: "Api", model: str | None, output_tokens: int | None
    ) -> AbstractContextManager[object]:
        """Surround the exchange with the provider, whose headers continue the trace."""

    def settling(self) -> AbstractContextManager[object]:
        """Surround the settlement."""

    def settled(self, outcome: "Outcome") -> None:
        """Tell what was used, and what it cost."""

    def trace_id(self) -> str | None:
        """Return the id of the trace, for the event; None: what the caller sent."""

    def end(self, call: "Call") -> None:
        """Tell how the call ended."""


_NOTHING = nullcontext()


class NoTrace:
    """What a call has instead of a trace."""

    def identified(self, caller: "Caller") -> None:
        """Tell nobody."""

    def holding(self) -> AbstractContextManager[object]:
        """Surround nothing."""
        return _NOTHING

    def held(self, admission: "Admission") -> None:
        """Tell nobody."""

    def upstream(
        self, call: "Call", api: "Api", model: str | None, output_tokens: int | None
    ) -> AbstractContextManager[object]:
        """Surround nothing."""
        return _NOTHING

    def settling(self) -> AbstractContextManager[object]:
        """Surround nothing."""
        return _NOTHING

    def settled(self, outcome: "Outcome") -> None:
        """Tell nobody."""

    def trace_id(self) -> str | None:
        """Have none."""
        return None

    def end(self, call: "Call") -> None:
        """Tell nobody."""


NO_TRACE = NoTrace()

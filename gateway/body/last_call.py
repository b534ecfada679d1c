"""The last call that a task run keeps in reserve, so that it can end with an answer.

A run with a cap can say with each call how large its last one can be. A call is then admitted only
if the last one still fits into the cap afterwards.
"""

import re

import msgspec

from gateway.body.usage_bound import OVERHEAD, UsageBound
from gateway.errors import bad_request
from gateway.network.headers import OURS, Headers

HEADER = OURS + b"last-call"
_SIZES = re.compile(rb"([0-9]{1,8}) ([0-9]{1,6})")


class LastCall(msgspec.Struct, frozen=True, gc=False):
    """The most bytes that the body of the call can have, and its maximum of output tokens."""

    size: int
    output_tokens: int

    @property
    def usage_bound(self) -> UsageBound:
        """Return the most tokens that the call can use."""
        return UsageBound(self.size + OVERHEAD, self.output_tokens)


def last_call_of(headers: Headers) -> LastCall | None:
    """Return the call that the caller keeps in reserve, if any. Raises a 400 `Refusal`."""
    values = [value for name, value in headers if name == HEADER]
    if not values:
        return None
    sizes = _SIZES.fullmatch(values[0])
    if len(values) > 1 or sizes is None:
        raise bad_request(f"{HEADER.decode()} must be two numbers: bytes and output tokens.")
    return LastCall(int(sizes[1]), int(sizes[2]))

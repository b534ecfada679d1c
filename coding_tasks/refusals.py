"""What errors from the gateway mean: the gateway's or the provider's, and whether to try again.

Headers mark the gateway's own refusals and the answers that it passes on (docs/gateway.md). A body
alone is not trusted, because a provider may have written it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from coding_tasks.failures import (
    AcceptedCapReached,
    CallsThrottled,
    CreditsHeld,
    GatewayUnavailable,
    ModelFailed,
    ModelRefused,
    OutOfCredits,
    RunCapReached,
    TokenRefused,
)
from quota.reasons import Reason

REASON = "x-tollgate-reason"
PROVIDER = "x-tollgate-provider"
_OUT_OF_CREDITS = "billable_credits"
_RUN_CAP = "run_cap"
# The gateway's name for its own cap for runs, which the team cannot raise.
_CAP_OF_THE_GATEWAY = "gateway_run_cap_reached"
_ACCEPTED_CAP = "accepted_cap_reached"
# The gateway's reasons if a provider did not answer.
_ABOUT_THE_PROVIDER = frozenset({"provider_failed", "provider_timeout", "provider_unreachable"})
_UNAUTHENTICATED = "unauthenticated"
# Other statuses below 500 after which the same call may succeed.
_TEMPORARY = frozenset({408, 409, 429})
_TEMPORARY_AT_PROVIDERS = _TEMPORARY | {401}
# A proxy in front of the gateway reports that the gateway is down.
_NO_GATEWAY = frozenset({502, 503, 504})


def failure_of(status: int, headers: Mapping[str, str], body: object) -> Exception:
    """Return what an error response means for the run: see `coding_tasks.failures`.

    `headers` must ignore case. `body` is the decoded JSON; anything else counts as no details.
    """
    details = _details(body)
    reason = headers.get(REASON)
    if reason is None and PROVIDER not in headers:  # an older gateway does not mark its answers
        reason = details.get("reason")
        if not reason and not details and status in _NO_GATEWAY:
            return GatewayUnavailable(f"there is no gateway: {status}")
    if reason:
        return _refusal_of_the_gateway(status, str(reason), headers, details)
    return _failure_of_the_provider(status, headers, details)


def failure_of_refusal(refusal: Mapping[str, Any]) -> Exception:
    """Return what a refusal that the sandbox's door heard means for the run.

    The agent worker wrote it (`coding_tasks.agent_worker.job`), so its parts may be of any type.
    """
    status, headers, details = map(refusal.get, ("status", "headers", "details"))
    named = {str(name): str(value) for name, value in _object(headers).items()}
    code = status if isinstance(status, int) else 0
    failure = _refusal_of_the_gateway(code, named.get(REASON, ""), named, _object(details))
    if isinstance(failure, GatewayUnavailable) and 400 <= code < 500:
        return CallsThrottled(str(failure), retry_after=failure.retry_after)
    return failure


def _refusal_of_the_gateway(
    status: int, reason: str, headers: Mapping[str, str], details: dict[str, Any]
) -> Exception:
    message = f"the gateway refused ({status}): {reason}"[:200]
    may_pass = headers.get("x-should-retry") == "true"
    if reason in (_OUT_OF_CREDITS, _RUN_CAP):
        if may_pass:
            return CreditsHeld(message, retry_after=_seconds(headers))
        return _out_of_credits(reason, details)
    if reason in _ABOUT_THE_PROVIDER:
        return ModelFailed(message)
    if reason == _UNAUTHENTICATED:
        return TokenRefused(message)
    if may_pass or status >= 500 or status in _TEMPORARY:
        return GatewayUnavailable(message, retry_after=_seconds(headers))
    return ModelRefused(message)


def _out_of_credits(reason: str, details: dict[str, Any]) -> Exception:
    cause = str(details.get("cause") or "")
    if reason != _RUN_CAP:
        return OutOfCredits(_time(details.get("resets_at")), cause)
    if cause == _ACCEPTED_CAP:
        return AcceptedCapReached()
    if cause == _CAP_OF_THE_GATEWAY:
        return RunCapReached()
    return OutOfCredits(None, Reason.RUN_CAP_REACHED)


def _failure_of_the_provider(
    status: int, headers: Mapping[str, str], details: dict[str, Any]
) -> Exception:
    message = f"the provider answered {status}: {details.get('type') or 'no type given'}"[:200]
    may_pass = status >= 500 or status in _TEMPORARY_AT_PROVIDERS
    if status != 401 and (headers.get("x-should-retry") == "false" or not may_pass):
        return ModelRefused(message)
    return ModelFailed(message)


def _details(body: object) -> dict[str, Any]:
    """Return the error of an Anthropic error body: `{"type": "error", "error": {…}}`."""
    return _object(_object(body).get("error"))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _seconds(headers: Mapping[str, str]) -> int:
    """Return `Retry-After`, which the gateway gives in seconds; 0 if there is none."""
    seconds = headers.get("retry-after", "")
    return int(seconds) if seconds.isdecimal() else 0


def _time(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value)) if value else None
    except ValueError:
        return None

"""Asking a model through the LLM gateway, once. Temporal owns every retry."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anthropic
from anthropic.types import MessageParam

from coding_tasks.agents import ModelAccess
from coding_tasks.failures import ModelFailed, ModelRefused, OutOfCredits, RunCapReached
from quota.account_state import RUN_CAP_REACHED

_CONNECT_TIMEOUT = 5.0
# The gateway's word for a cap of runs that is its own, and so not the team's to raise.
_CAP_OF_THE_GATEWAY = "gateway_run_cap_reached"
# Statuses of the gateway and of providers after which the same call may succeed. 401 is one: a
# token may have been revoked by an earlier attempt at the same run that was believed dead.
_PASSING = frozenset({401, 408, 409, 429})


@dataclass(frozen=True)
class Question:
    """One call of a model. `timeout` is in seconds and bounds the wait for the whole answer."""

    model: str
    system: str
    messages: Sequence[MessageParam]
    max_tokens: int
    timeout: float


def ask(access: ModelAccess, question: Question) -> str:
    """Return the text of the model's answer.

    Raises `OutOfCredits` when the gateway refused for want of credits, `RunCapReached` when no
    credits would help, `ModelFailed` when another attempt may succeed, and `ModelRefused`.
    """
    client = anthropic.Anthropic(
        base_url=access.base_url,
        auth_token=access.token,
        max_retries=0,
        timeout=anthropic.Timeout(question.timeout, connect=_CONNECT_TIMEOUT),
        default_headers={"traceparent": f"00-{access.trace_id}-{access.trace_id[:16]}-01"},
    )
    with client:
        try:
            message = client.messages.create(
                model=question.model,
                system=question.system,
                messages=question.messages,
                max_tokens=question.max_tokens,
            )
        except anthropic.APIStatusError as error:
            raise _failure(error) from error
        except anthropic.APIError as error:  # no connection, no answer in time, or not the API's
            raise ModelFailed(f"the gateway gave no answer: {type(error).__name__}") from error
    return "".join(block.text for block in message.content if block.type == "text")


def _failure(error: anthropic.APIStatusError) -> Exception:
    details = _details(error.body)
    told = error.response.headers.get("x-should-retry")
    status = error.status_code
    if details.get("reason") == "billable_credits" and told != "true":
        return OutOfCredits(_time(details.get("resets_at")), str(details.get("cause") or ""))
    if details.get("reason") == "run_cap" and told != "true":
        if details.get("cause") == _CAP_OF_THE_GATEWAY:
            return RunCapReached()
        return OutOfCredits(None, RUN_CAP_REACHED)
    kind = details.get("reason") or details.get("type") or "no reason given"
    message = f"the gateway answered {status}: {kind}"[:200]
    if status != 401 and (told == "false" or not (status >= 500 or status in _PASSING)):
        return ModelRefused(message)
    return ModelFailed(message)


def _details(body: object) -> dict[str, Any]:
    """Return the error of an Anthropic error body: `{"type": "error", "error": {…}}`."""
    details = body.get("error") if isinstance(body, dict) else None
    return details if isinstance(details, dict) else {}


def _time(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value)) if value else None
    except ValueError:
        return None

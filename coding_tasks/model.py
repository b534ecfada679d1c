"""Ask a model through the LLM gateway, once. Temporal does the retries."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import anthropic
import httpx2
from anthropic.types import Message, MessageParam
from django.utils.crypto import salted_hmac

from coding_tasks.assignments import ModelAccess
from coding_tasks.failures import AnswerLost, GatewayUnavailable, ModelFailed
from coding_tasks.refusals import failure_of

_SALT = "coding_tasks.model"
_CONNECT_TIMEOUT = 5.0
_NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout)


@dataclass(frozen=True)
class Question:
    """One call of a model. `timeout` is in seconds, for the whole answer."""

    model: str
    system: str
    messages: Sequence[MessageParam]
    max_tokens: int
    timeout: float


def ask(access: ModelAccess, question: Question) -> str:
    """Return the text of the model's answer.

    Raises `OutOfCredits` if the gateway refused for lack of credits, `MustWait` if it could not
    pass the call on yet, and a `RunFailure` if the provider gave no answer or never will.
    """
    begun: list[object] = []
    client = anthropic.Anthropic(
        base_url=access.base_url,
        auth_token=access.token,
        max_retries=0,
        timeout=anthropic.Timeout(question.timeout, connect=_CONNECT_TIMEOUT),
        default_headers=_headers(access, question),
        http_client=anthropic.DefaultHttpxClient(event_hooks={"response": [begun.append]}),
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
            failure = failure_of(error.status_code, error.response.headers, error.body)
            raise failure from error
        except anthropic.APIError as error:  # no connection, no answer in time, or not the API's
            raise _no_answer(access, error, begun=bool(begun)) from error
    if not isinstance(message, Message) or not isinstance(message.content, list):
        raise ModelFailed("the answer is not one of the API's")
    return "".join(block.text for block in message.content if block.type == "text")


def _headers(access: ModelAccess, question: Question) -> dict[str, str]:
    headers = {"traceparent": f"00-{access.trace_id}-{access.trace_id[:16]}-01"}
    if access.purpose:
        headers["Idempotency-Key"] = _step_key(access, question)
    return headers


def _step_key(access: ModelAccess, question: Question) -> str:
    """Return a key that is the same in each attempt at a step, and cannot be guessed.

    The gateway encrypts the stored answer with this key.
    """
    asked = json.dumps([access.purpose, next(access.steps), asdict(question)], sort_keys=True)
    return salted_hmac(_SALT, asked, algorithm="sha256").hexdigest()


def _no_answer(access: ModelAccess, error: anthropic.APIError, *, begun: bool) -> Exception:
    """Return the failure of a call without an answer, or with only the beginning of one (`begun`).

    If a provider does not answer, the gateway says so. So if nothing answers, the gateway has died,
    or the provider takes longer than we wait.
    """
    name = type(error).__name__
    if begun:
        return ModelFailed(f"the answer broke off: {name}")
    if isinstance(error.__cause__, _NOT_CONNECTED):
        return GatewayUnavailable("the gateway cannot be reached")
    if isinstance(error, anthropic.APITimeoutError) and _is_alive(access):
        return ModelFailed("no answer in time")
    return AnswerLost(f"the gateway gave no answer: {name}")


def _is_alive(access: ModelAccess) -> bool:
    """Return whether the gateway answers at all."""
    gateway, _, _product = access.base_url.rpartition("/")
    try:
        httpx2.get(f"{gateway}/_health", timeout=_CONNECT_TIMEOUT)
    except httpx2.HTTPError:
        return False
    return True

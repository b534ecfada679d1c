"""Ask a model through the LLM gateway, once. Temporal does the retries."""

import functools
import json
import ssl
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypedDict

import httpx2
from django.utils.crypto import salted_hmac

from coding_tasks.failures import AnswerLost, GatewayUnavailable, ModelFailed
from coding_tasks.reading.assignments import ModelAccess
from coding_tasks.refusals import failure_of

_SALT = "coding_tasks.model"
_API_VERSION = "2023-06-01"
_CONNECT_TIMEOUT = 5.0
_NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout)


class Message(TypedDict):
    """One message of a conversation with a model."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True)
class Question:
    """One call of a model. `timeout` is in seconds, for the whole answer.

    `material` are parts of the last message that precede its text: quoted texts, and images.
    """

    model: str
    system: str
    messages: Sequence[Message]
    max_tokens: int
    timeout: float
    material: Sequence[dict[str, Any]] = ()


def ask(access: ModelAccess, question: Question) -> str:
    """Return the text of the model's answer.

    Raises `OutOfCredits` if the gateway refused for lack of credits, `MustWait` if it could not
    pass the call on yet, and a `RunFailure` if the provider gave no answer or never will.
    """
    begun: list[object] = []
    client = httpx2.Client(
        timeout=httpx2.Timeout(question.timeout, connect=_CONNECT_TIMEOUT),
        verify=_tls(),
        event_hooks={"response": [begun.append]},
    )
    with client:
        try:
            response = client.post(
                f"{access.base_url}/v1/messages",
                headers=_headers(access, question),
                json={
                    "model": question.model,
                    "system": question.system,
                    "messages": _messages(question),
                    "max_tokens": question.max_tokens,
                },
            )
        except httpx2.HTTPError as error:  # no connection, or no whole answer in time
            raise _no_answer(access, error, begun=bool(begun)) from error
    document = _document_of(response)
    if not response.is_success:
        raise failure_of(response.status_code, response.headers, document)
    return _text_of(document)


def _messages(question: Question) -> Sequence[Any]:
    """Return the messages to send, the last one with the material."""
    if not question.material:
        return question.messages
    *earlier, last = question.messages
    asked = {"type": "text", "text": last["content"]}
    return [*earlier, {"role": last["role"], "content": [*question.material, asked]}]


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return the context of every client; creating one reads all the certificates."""
    return httpx2.create_ssl_context()


def _document_of(response: httpx2.Response) -> object:
    """Return the decoded JSON, or None if it isn't any."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _text_of(document: object) -> str:
    content = document.get("content") if isinstance(document, dict) else None
    if not isinstance(content, list):
        raise ModelFailed("the answer is not one of the API's")
    blocks = [block for block in content if isinstance(block, dict) and block.get("type") == "text"]
    return "".join(str(block.get("text", "")) for block in blocks)


def _headers(access: ModelAccess, question: Question) -> dict[str, str]:
    headers = {
        "Authorization": f"Bearer {access.token}",
        "anthropic-version": _API_VERSION,
        "traceparent": f"00-{access.trace_id}-{access.trace_id[:16]}-01",
    }
    if access.purpose:
        headers["Idempotency-Key"] = _step_key(access, question)
    return headers


def _step_key(access: ModelAccess, question: Question) -> str:
    """Return a key that is the same in each attempt at a step, and cannot be guessed.

    The gateway encrypts the stored answer with this key.
    """
    asked = json.dumps([access.purpose, next(access.steps), asdict(question)], sort_keys=True)
    return salted_hmac(_SALT, asked, algorithm="sha256").hexdigest()


def _no_answer(access: ModelAccess, error: httpx2.HTTPError, *, begun: bool) -> Exception:
    """Return the failure of a call without an answer, or with only the beginning of one (`begun`).

    If a provider does not answer, the gateway says so. So if nothing answers, the gateway has died,
    or the provider takes longer than we wait.
    """
    name = type(error).__name__
    if begun:
        return ModelFailed(f"the answer broke off: {name}")
    if isinstance(error, _NOT_CONNECTED):
        return GatewayUnavailable("the gateway cannot be reached")
    if isinstance(error, httpx2.TimeoutException) and _is_alive(access):
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

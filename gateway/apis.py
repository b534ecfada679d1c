"""The provider APIs that pass through the gateway: one table of paths, providers and dialects."""

import re
from dataclasses import dataclass, replace

from gateway.errors import Dialect


@dataclass(frozen=True, slots=True)
class Api:
    """One endpoint of a provider.

    `meter` names the format in which its answers report usage, or is None if they report none.
    `output_fields` are the request fields that limit the output; if a call has none of them, the
    gateway adds the first. `name` replaces the path in logs and metrics, which must not contain
    anything that a caller wrote.
    """

    path: str
    method: str
    dialect: Dialect
    provider: str
    meter: str | None = None
    output_fields: tuple[str, ...] = ()
    name: str = ""

    @property
    def label(self) -> str:
        """Return what logs and metrics call this endpoint."""
        return self.name or self.path


MESSAGES = Api("/v1/messages", "POST", "anthropic", "anthropic", "messages", ("max_tokens",))
COUNT_TOKENS = Api("/v1/messages/count_tokens", "POST", "anthropic", "anthropic")
CHAT_COMPLETIONS = Api(
    "/v1/chat/completions", "POST", "chat", "openai", "chat",
    ("max_completion_tokens", "max_tokens"),
)  # fmt: skip
RESPONSES = Api("/v1/responses", "POST", "responses", "openai", "responses", ("max_output_tokens",))
# This API has no output limit: https://developers.openai.com/api/reference/resources/responses
COMPACT = Api("/v1/responses/compact", "POST", "responses", "openai", "responses")
INPUT_TOKENS = Api("/v1/responses/input_tokens", "POST", "responses", "openai")
OPENAI_MODELS = Api("/v1/models", "GET", "chat", "openai")
ANTHROPIC_MODELS = Api("/v1/models", "GET", "anthropic", "anthropic")

METERED = (MESSAGES, CHAT_COMPLETIONS, RESPONSES, COMPACT)
_BY_PATH = {api.path: api for api in (*METERED, COUNT_TOKENS, INPUT_TOKENS)}
_MODEL = "/v1/models/{model}"
# A model's name in a path. It must not contain anything that could lead to another path.
_ONE_MODEL = re.compile(r"/v1/models/(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._:@-]{0,255}", re.ASCII)
_INSTEAD = (
    (
        re.compile(r"/v1/(?:messages/)?batches(?:/|\Z)"),
        "Batches are billed long after they were sent, so they cannot be metered here. "
        "Send each of their requests by itself.",
    ),
    (
        re.compile(r"/v1/(?:responses/.+|conversations(?:/.*)?)\Z"),
        "Stored responses and conversations cannot be read here. "
        "Read the answer of POST /v1/responses, streamed or not.",
    ),
)


def find(path: str, headers: dict[bytes, bytes]) -> Api | None:
    """Return the API at a path below the product. Headers decide whose `/v1/models` is meant."""
    if path == OPENAI_MODELS.path or _ONE_MODEL.fullmatch(path):
        models = ANTHROPIC_MODELS if b"anthropic-version" in headers else OPENAI_MODELS
        return models if path == models.path else replace(models, path=path, name=_MODEL)
    return _BY_PATH.get(path)


def instead_of(path: str) -> str:
    """Return what to use instead of a known path that is not served, else ""."""
    return next((advice for known, advice in _INSTEAD if known.match(path)), "")


def dialect_of(path: str, headers: dict[bytes, bytes]) -> Dialect:
    """Return the error format for a call whose product or path may be wrong."""
    if "/messages" in path or b"anthropic-version" in headers:
        return "anthropic"
    return "responses" if RESPONSES.path in path else "chat"

"""The provider APIs that pass through the gateway: one table of paths, providers and dialects."""

import re
from dataclasses import dataclass, replace

from gateway.refusals.errors import Dialect


@dataclass(frozen=True, slots=True)
class Api:
    """One endpoint of a provider.

    `meter` names how its answers report usage, if they do. `output_fields` are the fields that
    limit the output of a call; the first is the one to add. `name` stands for the path in logs and
    metrics, which must not hold anything that a caller wrote.
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
# This API has no maximum of output: https://developers.openai.com/api/reference/resources/responses
COMPACT = Api("/v1/responses/compact", "POST", "responses", "openai", "responses")
INPUT_TOKENS = Api("/v1/responses/input_tokens", "POST", "responses", "openai")
OPENAI_MODELS = Api("/v1/models", "GET", "chat", "openai")
ANTHROPIC_MODELS = Api("/v1/models", "GET", "anthropic", "anthropic")

METERED = (MESSAGES, CHAT_COMPLETIONS, RESPONSES, COMPACT)
_BY_PATH = {api.path: api for api in (*METERED, COUNT_TOKENS, INPUT_TOKENS)}
_MODEL = "/v1/models/{model}"
# The name of a model as it may stand in a path; nothing that could lead elsewhere.
_ONE_MODEL = re.compile(r"/v1/models/(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._:@-]{0,255}", re.ASCII)
_INSTEAD = (
    (
        re.compile(r"/v1/(?:messages/)?batches(?:/|\Z)"),
        "Batches are billed long after they were sent, so they cannot be metered here. "
        "Send each of their requests by itself.",
    ),
    (
        re.compile(r"/v1/(?:responses/.+|conversations(?:/.*)?)\Z"),
        "What the provider keeps of earlier calls cannot be read here. "
        "Read the answer of POST /v1/responses, streamed or not.",
    ),
)


def find(path: str, headers: dict[bytes, bytes]) -> Api | None:
    """Return the API of a path below the product. `/v1/models` belongs to the SDK that asks."""
    if path == OPENAI_MODELS.path or _ONE_MODEL.fullmatch(path):
        models = ANTHROPIC_MODELS if b"anthropic-version" in headers else OPENAI_MODELS
        return models if path == models.path else replace(models, path=path, name=_MODEL)
    return _BY_PATH.get(path)


def instead_of(path: str) -> str:
    """Return what to do instead if a known path is not served, else ""."""
    return next((advice for known, advice in _INSTEAD if known.match(path)), "")


def dialect_of(path: str, headers: dict[bytes, bytes]) -> Dialect:
    """Return the shape in which to refuse a call whose product or path may be wrong."""
    if "/messages" in path or b"anthropic-version" in headers:
        return "anthropic"
    return "responses" if RESPONSES.path in path else "chat"

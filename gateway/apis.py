"""The provider APIs that pass through the gateway: one table of paths, providers and dialects."""

from dataclasses import dataclass

from gateway.errors import Dialect


@dataclass(frozen=True, slots=True)
class Api:
    """One endpoint of a provider. `meter` names how its answers tell their usage, if they do."""

    path: str
    method: str
    dialect: Dialect
    provider: str
    meter: str | None


MESSAGES = Api("/v1/messages", "POST", "anthropic", "anthropic", "messages")
COUNT_TOKENS = Api("/v1/messages/count_tokens", "POST", "anthropic", "anthropic", None)
CHAT_COMPLETIONS = Api("/v1/chat/completions", "POST", "chat", "openai", "chat")
RESPONSES = Api("/v1/responses", "POST", "responses", "openai", "responses")
OPENAI_MODELS = Api("/v1/models", "GET", "chat", "openai", None)
ANTHROPIC_MODELS = Api("/v1/models", "GET", "anthropic", "anthropic", None)

METERED = (MESSAGES, CHAT_COMPLETIONS, RESPONSES)
_BY_PATH = {api.path: api for api in (*METERED, COUNT_TOKENS)}


def find(path: str, headers: dict[bytes, bytes]) -> Api | None:
    """Return the API of a path below the product. `/v1/models` belongs to the SDK that asks."""
    if path == OPENAI_MODELS.path:
        return ANTHROPIC_MODELS if b"anthropic-version" in headers else OPENAI_MODELS
    return _BY_PATH.get(path)


def dialect_of(path: str, headers: dict[bytes, bytes]) -> Dialect:
    """Return the shape in which to refuse a call whose product or path may be wrong."""
    if "/messages" in path or b"anthropic-version" in headers:
        return "anthropic"
    return "responses" if path.endswith(RESPONSES.path) else "chat"

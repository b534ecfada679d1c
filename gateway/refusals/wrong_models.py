"""Refusing models that are called through another provider's API."""

import re

from gateway.apis import CHAT_COMPLETIONS, MESSAGES, RESPONSES
from gateway.body.requests import ModelRequest
from gateway.errors import bad_request
from gateway.money.prices import Prices, UnknownPrice

# OpenAI's models by a part of their names. Some tools prefix the provider or a region.
_OPENAI = re.compile(r"(?:^|[/.])(?:gpt-|chatgpt-|codex-|o\d)")


def check(product: str, request: ModelRequest, prices: Prices) -> None:
    """Raise a 400 `Refusal` that names the model's own API if it is called through another.

    A model with a price for this provider passes, because the operator's provider may serve it.
    """
    provider, model = request.api.provider, request.model
    is_claude = "claude" in model
    if is_claude == (provider == "anthropic") or not (is_claude or _OPENAI.search(model)):
        return
    try:
        prices.rates(provider, model)
    except UnknownPrice:
        own = (MESSAGES,) if is_claude else (RESPONSES, CHAT_COMPLETIONS)
        paths = " or ".join(f"/{product}{api.path}" for api in own)
        message = f"{model[:100]} is not a model of {request.api.path}. Call it at {paths}."
        raise bad_request(message, "model_of_another_api") from None

"""Which fields of a request may be forwarded on billable products.

A provider's new field may cost something that no bound covers, so only known fields pass: harmless
ones, those that `usage_bound.py` counts, and those that the operator adds. Sources: the API
references (https://docs.anthropic.com/en/api/messages,
https://platform.openai.com/docs/api-reference) and the types of the providers' SDKs, with which a
test compares these lists.
"""

from collections.abc import Mapping

import msgspec

from gateway.errors import bad_request

_CHAT_AND_RESPONSES = frozenset(
    {
        "metadata", "model", "moderation", "parallel_tool_calls", "prompt_cache_key",
        "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "service_tier",
        "store", "stream", "stream_options", "temperature", "tool_choice", "tools", "top_logprobs",
        "top_p", "user",
    }
)  # fmt: skip
ALLOWED: Mapping[str, frozenset[str]] = {
    "messages": frozenset(
        {
            "cache_control", "context_management", "diagnostics", "inference_geo", "max_tokens",
            "messages", "metadata", "model", "output_config", "output_format", "service_tier",
            "speed", "stop_sequences", "stream", "system", "temperature", "thinking", "thread",
            "tool_choice", "tools", "top_k", "top_p",
        }
    ),
    "chat": _CHAT_AND_RESPONSES
    | {
        "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
        "max_completion_tokens", "max_tokens", "messages", "modalities", "n", "prediction",
        "presence_penalty", "reasoning_effort", "response_format", "seed", "stop", "verbosity",
    },
    "responses": _CHAT_AND_RESPONSES
    | {
        "background", "background_options", "client_metadata", "conversation", "image", "include",
        "input",
        "instructions", "max_output_tokens", "max_tool_calls", "previous_response_id", "reasoning",
        "text", "truncation",
    },
}  # fmt: skip
# Never forwarded, even if the operator adds them.
REFUSED: Mapping[str, frozenset[str]] = {
    "messages": frozenset(
        {
            "betas",  # belongs in the header, where it is read
            "billing_policy", "user_profile_id", "workspace_id",  # who pays at the provider
            "compaction", "container", "fallback_credit_token", "fallbacks", "mcp_servers",
        }
    ),
    "chat": frozenset({"audio", "web_search_options"}),
    "responses": frozenset(
        {
            "access_programs",  # what the operator is authorized for
            "betas",  # belongs in the header
            "context_management", "multi_agent", "prompt",
        }
    ),
}  # fmt: skip
DOCUMENTED = frozenset[str]().union(*ALLOWED.values(), *REFUSED.values())
_NOTHING = (b"null", b"[]")


def check(meter: str, fields: Mapping[str, msgspec.Raw], further: frozenset[str]) -> None:
    """Raise a 400 `Refusal` for a field of unknown cost. The operator allows those in `further`."""
    if fields.keys() <= ALLOWED[meter]:
        return
    for name in fields.keys() - ALLOWED[meter]:
        if (name not in further or name in REFUSED[meter]) and bytes(fields[name]) not in _NOTHING:
            raise bad_request(
                f"The field {name[:100]!r} has no known maximum cost here.", "unmeterable"
            )

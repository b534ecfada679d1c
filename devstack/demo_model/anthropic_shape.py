"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages and …/messages-streaming."""

import uuid
from collections.abc import Iterator
from typing import Any

from devstack.demo_model.script import Prompt, Reply, text_of, usage_of

Json = dict[str, Any]
Event = tuple[str | None, Json | str]

MODELS = ("claude-sonnet-4-5", "claude-haiku-4-5")


def prompt(body: Json) -> Prompt:
    """Return the prompt of a Messages request."""
    texts = [text_of(message.get("content")) for message in body.get("messages", [])]
    return Prompt(
        str(body.get("model", "")),
        text_of(body.get("system", "")),
        "\n".join(texts),
        texts[-1] if texts else "",
    )


def _usage(asked: Prompt, reply: Reply) -> Json:
    usage = usage_of(asked, reply)
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_creation,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_creation,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": usage.output,
        "service_tier": "standard",
    }


def answer(asked: Prompt, reply: Reply) -> Json:
    """Return the whole message."""
    return {
        "id": f"msg_demo_{uuid.uuid4().hex[:20]}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [{"type": "text", "text": reply.text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": _usage(asked, reply),
    }


def stream(asked: Prompt, reply: Reply, _body: Json) -> Iterator[Event]:
    """Yield the events of a streamed message: usage at the start, output tokens at the end."""
    message = answer(asked, reply)
    usage = message["usage"]
    start = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield "message_start", {"type": "message_start", "message": start}
    block = {"type": "text", "text": ""}
    yield (
        "content_block_start",
        {"type": "content_block_start", "index": 0, "content_block": block},
    )
    yield "ping", {"type": "ping"}
    for piece in pieces(reply.text):
        delta = {"type": "text_delta", "text": piece}
        yield (
            "content_block_delta",
            {"type": "content_block_delta", "index": 0, "delta": delta},
        )
    yield "content_block_stop", {"type": "content_block_stop", "index": 0}
    yield (
        "message_delta",
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": usage["output_tokens"]},
        },
    )
    yield "message_stop", {"type": "message_stop"}


def error(kind: str, message: str) -> Json:
    """Return an error in Anthropic's shape."""
    return {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": f"req_demo_{uuid.uuid4().hex[:20]}",
    }


def pieces(text: str, size: int = 16) -> list[str]:
    """Cut a text into the pieces in which it is streamed."""
    return [text[start : start + size] for start in range(0, len(text), size)]

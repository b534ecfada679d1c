"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages and …/messages-streaming."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

from devstack.demo_model.script import Prompt, Reply, text_of, usage_of

Json = dict[str, Any]
Event = tuple[str | None, Json | str]

MODELS = ("claude-sonnet-4-5", "claude-haiku-4-5")


def prompt(body: Json) -> Prompt:
    """Return the prompt of a Messages request."""
    texts: list[str] = []
    last, results = "", []
    for message in body.get("messages", []):
        content = message.get("content")
        texts.append(text_of(content))
        if returned := [text_of([part]) for part in _parts(content, "tool_result")]:
            results += returned
        elif message.get("role") == "user":
            last, results = _last_text(content), []
    return Prompt(
        str(body.get("model", "")),
        text_of(body.get("system", "")),
        "\n".join(texts),
        last,
        tuple(str(tool.get("name", "")) for tool in body.get("tools") or []),
        tuple(results),
    )


def _last_text(content: Any) -> str:
    """Return what a person said. Agents put reminders of their own into the parts before it."""
    return text_of(content[-1:] if isinstance(content, list) else content)


def _parts(content: Any, kind: str) -> list[Json]:
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, dict) and part.get("type") == kind]


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
        "content": _content(reply),
        "stop_reason": "tool_use" if reply.tools else "end_turn",
        "stop_sequence": None,
        "usage": _usage(asked, reply),
    }


def _content(reply: Reply) -> list[Json]:
    text = [{"type": "text", "text": reply.text}] if reply.text or not reply.tools else []
    return text + [
        {
            "type": "tool_use",
            "id": f"toolu_demo_{uuid.uuid4().hex[:20]}",
            "name": call.name,
            "input": call.arguments,
        }
        for call in reply.tools
    ]


def stream(asked: Prompt, reply: Reply, _body: Json) -> Iterator[Event]:
    """Yield the events of a streamed message: usage at the start, output tokens at the end."""
    message = answer(asked, reply)
    usage = message["usage"]
    start = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield "message_start", {"type": "message_start", "message": start}
    yield "ping", {"type": "ping"}
    for index, block in enumerate(message["content"]):
        yield from _streamed_block(index, block)
    yield (
        "message_delta",
        {
            "type": "message_delta",
            "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None},
            "usage": {"output_tokens": usage["output_tokens"]},
        },
    )
    yield "message_stop", {"type": "message_stop"}


def _streamed_block(index: int, block: Json) -> Iterator[Event]:
    if block["type"] == "text":
        begun = {**block, "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
    else:
        begun, written = {**block, "input": {}}, pieces(json.dumps(block["input"]))
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in written]
    start = {"type": "content_block_start", "index": index, "content_block": begun}
    yield "content_block_start", start
    for delta in deltas:
        yield (
            "content_block_delta",
            {"type": "content_block_delta", "index": index, "delta": delta},
        )
    yield "content_block_stop", {"type": "content_block_stop", "index": index}


def error(kind: str, message: str) -> Json:
    """Return an error in Anthropic's shape."""
    return {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": f"req_demo_{uuid.uuid4().hex[:20]}",
    }


def pieces(text: str, size: int = 16) -> list[str]:
    """Return the pieces in which a text is streamed."""
    return [text[start : start + size] for start in range(0, len(text), size)]

"""OpenAI's Chat Completions and Responses: https://platform.openai.com/docs/api-reference."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from devstack.demo_model.anthropic_shape import Event, pieces
from devstack.demo_model.script import Prompt, Reply, text_of, usage_of

Json = dict[str, Any]

MODELS = ("gpt-5", "gpt-5-mini")


def chat_prompt(body: Json) -> Prompt:
    """Return the prompt of a Chat Completions request."""
    return _prompt(body, body.get("messages", []))


def responses_prompt(body: Json) -> Prompt:
    """Return the prompt of a Responses request, whose input is a text or a list of messages."""
    given = body.get("input", "")
    messages = given if isinstance(given, list) else [{"role": "user", "content": given}]
    instructions = {"role": "system", "content": body.get("instructions") or ""}
    return _prompt(body, [instructions, *messages])


def _prompt(body: Json, messages: list[Json]) -> Prompt:
    said = [(message.get("role"), text_of(message.get("content"))) for message in messages]
    system = "\n".join(text for role, text in said if role in ("system", "developer"))
    texts = [text for role, text in said if role not in ("system", "developer")]
    return Prompt(str(body.get("model", "")), system, "\n".join(texts), texts[-1] if texts else "")


def _chat_usage(asked: Prompt, reply: Reply) -> Json:
    usage = usage_of(asked, reply)
    prompt_tokens = usage.input + usage.cache_read
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": usage.output,
        "total_tokens": prompt_tokens + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def chat_answer(asked: Prompt, reply: Reply) -> Json:
    """Return a whole chat completion."""
    return {
        "id": f"chatcmpl-demo-{uuid.uuid4().hex[:20]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply.text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": _chat_usage(asked, reply),
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }


def chat_stream(asked: Prompt, reply: Reply, body: Json) -> Iterator[Event]:
    """Yield the chunks of a chat completion; usage only when `stream_options` asks for it."""
    whole = chat_answer(asked, reply)
    with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    shared = {
        "id": whole["id"],
        "object": "chat.completion.chunk",
        "created": whole["created"],
        "model": whole["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }
    if with_usage:
        shared["usage"] = None

    def chunk(delta: Json, finish_reason: str | None = None) -> Event:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return None, {**shared, "choices": [choice]}

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in pieces(reply.text):
        yield chunk({"content": piece})
    yield chunk({}, "stop")
    if with_usage:
        yield None, {**shared, "choices": [], "usage": whole["usage"]}
    yield None, "[DONE]"


def responses_answer(asked: Prompt, reply: Reply) -> Json:
    """Return a whole response."""
    usage = usage_of(asked, reply)
    input_tokens = usage.input + usage.cache_read
    text = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
    return {
        "id": f"resp_demo_{uuid.uuid4().hex[:20]}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": asked.model,
        "output": [
            {
                "id": f"msg_demo_{uuid.uuid4().hex[:20]}",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [text],
            }
        ],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "service_tier": "default",
        "usage": {
            "input_tokens": input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cache_read},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input_tokens + usage.output,
        },
    }


def responses_stream(asked: Prompt, reply: Reply, _body: Json) -> Iterator[Event]:
    """Yield the events of a streamed response; the last one has the whole response and usage."""
    whole = responses_answer(asked, reply)
    item = whole["output"][0]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    number = iter(range(1_000_000))
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}

    def event(kind: str, fields: Json) -> Event:
        return kind, {"type": kind, "sequence_number": next(number), **fields}

    yield event("response.created", {"response": begun})
    yield event("response.in_progress", {"response": begun})
    started = {**item, "status": "in_progress", "content": []}
    yield event("response.output_item.added", {"output_index": 0, "item": started})
    yield event("response.content_part.added", {**place, "part": empty})
    for piece in pieces(reply.text):
        yield event("response.output_text.delta", {**place, "delta": piece, "logprobs": []})
    yield event("response.output_text.done", {**place, "text": reply.text, "logprobs": []})
    yield event("response.content_part.done", {**place, "part": item["content"][0]})
    yield event("response.output_item.done", {"output_index": 0, "item": item})
    yield event("response.completed", {"response": whole})


def error(kind: str, message: str) -> Json:
    """Return an error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}

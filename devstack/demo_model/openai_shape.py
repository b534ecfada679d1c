"""OpenAI's Chat Completions and Responses: https://platform.openai.com/docs/api-reference."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from devstack.demo_model.anthropic_shape import Event, pieces
from devstack.demo_model.script import Prompt, Reply, ToolCall, text_of, usage_of

Json = dict[str, Any]

MODELS = ("gpt-5", "gpt-5-mini")
_RESULTS = ("function_call_output", "custom_tool_call_output")


def chat_prompt(body: Json) -> Prompt:
    """Return the prompt of a Chat Completions request."""
    return _prompt(body, body.get("messages", []))


def responses_prompt(body: Json) -> Prompt:
    """Return the prompt of a Responses request, whose input is a text or a list of items."""
    given = body.get("input", "")
    items = given if isinstance(given, list) else [{"role": "user", "content": given}]
    instructions = {"role": "system", "content": body.get("instructions") or ""}
    return _prompt(body, [instructions, *(item for item in items if isinstance(item, dict))])


def _prompt(body: Json, messages: list[Json]) -> Prompt:
    system: list[str] = []
    texts: list[str] = []
    last, results = "", []
    for message in messages:
        role, text = message.get("role"), _text(message)
        if role in ("system", "developer"):
            system.append(text)
            continue
        texts.append(text)
        if role == "tool" or message.get("type") in _RESULTS:
            results.append(text)
        elif role == "user":
            last, results = text, []
    return Prompt(
        str(body.get("model", "")),
        "\n".join(system),
        "\n".join(texts),
        last,
        tuple(_tool_name(tool) for tool in body.get("tools") or []),
        tuple(results),
    )


def _text(message: Json) -> str:
    """Return what is billed of a message: its content, and the tools' arguments or results."""
    written = [text_of(message.get("content"))]
    for call in message.get("tool_calls") or []:
        written.append(str(call.get("function", {}).get("arguments", "")))
    written += [text_of(message.get(name)) for name in ("arguments", "input", "output")]
    return "\n".join(text for text in written if text)


def _tool_name(tool: Json) -> str:
    """Return a tool's name, which Chat Completions has in `function`. Built-in ones have a type."""
    named = tool.get("function") if isinstance(tool.get("function"), dict) else tool
    return str(named.get("name") or tool.get("type") or "") if named else ""


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


def _chat_message(reply: Reply) -> Json:
    message: Json = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.tools:
        message["content"] = reply.text or None
        message["tool_calls"] = [
            {
                "id": f"call_demo_{uuid.uuid4().hex[:20]}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.written},
            }
            for call in reply.tools
        ]
    return message


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
                "message": _chat_message(reply),
                "logprobs": None,
                "finish_reason": "tool_calls" if reply.tools else "stop",
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
    message = whole["choices"][0]["message"]
    for index, call in enumerate(message.get("tool_calls", [])):
        yield chunk({"tool_calls": [{"index": index, **call}]})
    yield chunk({}, whole["choices"][0]["finish_reason"])
    if with_usage:
        yield None, {**shared, "choices": [], "usage": whole["usage"]}
    yield None, "[DONE]"


def _output(reply: Reply) -> list[Json]:
    items: list[Json] = []
    if reply.text or not reply.tools:
        text = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
        items.append(
            {
                "id": f"msg_demo_{uuid.uuid4().hex[:20]}",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [text],
            }
        )
    return items + [_call(tool) for tool in reply.tools]


def _call(tool: ToolCall) -> Json:
    shared = {"status": "completed", "call_id": f"call_demo_{uuid.uuid4().hex[:20]}"}
    if isinstance(tool.arguments, str):
        item = {"id": f"ctc_demo_{uuid.uuid4().hex[:20]}", "type": "custom_tool_call", **shared}
        return {**item, "name": tool.name, "input": tool.arguments}
    item = {"id": f"fc_demo_{uuid.uuid4().hex[:20]}", "type": "function_call", **shared}
    return {**item, "name": tool.name, "arguments": tool.written}


def responses_answer(asked: Prompt, reply: Reply) -> Json:
    """Return a whole response."""
    usage = usage_of(asked, reply)
    input_tokens = usage.input + usage.cache_read
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
        "output": _output(reply),
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
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    number = iter(range(1_000_000))

    def event(kind: str, fields: Json) -> Event:
        return kind, {"type": kind, "sequence_number": next(number), **fields}

    yield event("response.created", {"response": begun})
    yield event("response.in_progress", {"response": begun})
    for index, item in enumerate(whole["output"]):
        for kind, fields in _streamed_item(item):
            yield event(kind, {"output_index": index, **fields})
    yield event("response.completed", {"response": whole})


def _streamed_item(item: Json) -> Iterator[tuple[str, Json]]:
    """Yield the names and fields of the events of one item of a response's output."""
    if item["type"] != "message":
        field, name = ("input", "custom_tool_call_input")
        if item["type"] == "function_call":
            field, name = ("arguments", "function_call_arguments")
        started = {**item, "status": "in_progress", field: ""}
        yield "response.output_item.added", {"item": started}
        yield f"response.{name}.delta", {"item_id": item["id"], "delta": item[field]}
        yield f"response.{name}.done", {"item_id": item["id"], field: item[field]}
        yield "response.output_item.done", {"item": item}
        return
    text = item["content"][0]["text"]
    place = {"item_id": item["id"], "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    yield (
        "response.output_item.added",
        {"item": {**item, "status": "in_progress", "content": []}},
    )
    yield "response.content_part.added", {**place, "part": empty}
    for piece in pieces(text):
        yield "response.output_text.delta", {**place, "delta": piece, "logprobs": []}
    yield "response.output_text.done", {**place, "text": text, "logprobs": []}
    yield "response.content_part.done", {**place, "part": item["content"][0]}
    yield "response.output_item.done", {"item": item}


def error(kind: str, message: str) -> Json:
    """Return an error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}

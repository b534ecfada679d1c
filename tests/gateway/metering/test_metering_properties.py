"""Answers of every valid shape cost what the provider's documentation says, to the last digit.

The oracle below does not use the gateway: it reads a whole answer with `json`, according to the
documentation of each API, and multiplies with the prices in this file. The generator makes answers
in any valid form: order and spacing of members, escapes, unknown members and events, nulls, line
ends, comments, data over several lines, text that looks like usage, cut anywhere.
"""

import json
import random
import tracemalloc
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission import Admission
from gateway.booking import Ending, Settler
from gateway.metering import meter_for
from gateway.metering.usage import Usage
from gateway.money.prices import Prices
from gateway.money.usage_events import CallRecord, Outcome
from tests.examples import examples

# Dollars per million tokens: input, cached, written for five minutes and for an hour, output.
MODELS = {
    "messages": ("anthropic", "claude-sonnet-4-6"),
    "chat": ("openai", "gpt-5-mini"),
    "responses": ("openai", "gpt-5-mini"),
}
CLAUDE = ("3", "0.3", "3.75", "6", "15")
GPT = {
    "default": ("0.25", "0.025", "0.25", "0.25", "2"),
    "flex": ("0.125", "0.0125", "0.125", "0.125", "1"),
    "priority": ("0.45", "0.045", "0.45", "0.45", "3.6"),
}
SEARCH = Decimal("0.01")
PRICES = Prices({})
FAKE_USAGE = (
    '{"usage":{"input_tokens":1,"output_tokens":1,"prompt_tokens":1,"completion_tokens":1}}'
)
TEXTS = (
    "word", " ", "naïve ", "漢字", "😀", "\n\n", "data: [DONE]\n\n", '"', "\\", "\\u0022",
    FAKE_USAGE, f"\n\ndata: {FAKE_USAGE}\n\n", '"usage":{"output_tokens":0}', "\u2028", "\x00",
    "}]}",
)  # fmt: skip


# --- the oracle ----------------------------------------------------------------------------------


def events_of(stream: bytes) -> Iterator[Any]:
    """Yield the events of a stream.

    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    text = stream.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    for block in text.split("\n\n"):
        fields = [line.partition(":") for line in block.split("\n")]
        data = [value.removeprefix(" ") for name, _, value in fields if name == "data"]
        if data and data != ["[DONE]"]:
            yield json.loads("\n".join(data))


def oracle(kind: str, answer: bytes, *, stream: bool, asked: str | None) -> Decimal:
    """Return what the provider charges."""
    parts = list(events_of(answer)) if stream else [json.loads(answer)]
    return {"messages": messages_bill, "chat": chat_bill, "responses": responses_bill}[kind](
        parts, asked
    )


def messages_bill(parts: list[Any], asked: str | None) -> Decimal:
    """Return the bill for a message, or for a stream by the latest value of each count."""
    reported: dict[str, Any] = {}
    for part in parts:
        usage = part.get("usage")
        if part.get("type") == "message_start":
            usage = part["message"].get("usage")
        elif part.get("type") not in ("message", "message_delta"):
            continue
        for name, value in (usage or {}).items():
            if value is not None:
                reported[name] = value
    written = reported.get("cache_creation_input_tokens", 0)
    hour = (reported.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0
    counts = (
        reported["input_tokens"], reported.get("cache_read_input_tokens", 0), written - hour, hour,
        reported["output_tokens"],
    )  # fmt: skip
    tokens = priced(CLAUDE, counts)
    if reported.get("inference_geo") == "us":
        tokens *= Decimal("1.1")
    return tokens + SEARCH * (reported.get("server_tool_use") or {}).get("web_search_requests", 0)


def chat_bill(parts: list[Any], asked: str | None) -> Decimal:
    """Return the bill for a completion, or for the last chunk with usage and any chunk's tier."""
    [usage] = [part["usage"] for part in parts if part.get("usage")][-1:]
    return openai_bill(parts, usage, "prompt", "completion", asked)


def responses_bill(parts: list[Any], asked: str | None) -> Decimal:
    """Return the bill for a response, or for that of the last event."""
    responses = [part.get("response", part) for part in parts
                 if "response" in part or part.get("object") == "response"]  # fmt: skip
    tokens = openai_bill(responses, responses[-1]["usage"], "input", "output", asked)
    searches = [
        item for item in responses[-1]["output"]
        if item["type"] == "web_search_call"
        and (item.get("action") or {}).get("type", "search") == "search"
    ]  # fmt: skip
    return tokens + SEARCH * len(searches)


def openai_bill(
    parts: list[Any], usage: dict[str, Any], into: str, out: str, asked: str | None
) -> Decimal:
    """Return the bill for these tokens. The input includes the cached tokens."""
    tiers = [part.get("service_tier") for part in parts]
    known = [tier for tier in (asked, *tiers) if tier not in (None, "auto")]
    cached = (usage.get(f"{into}_tokens_details") or {}).get("cached_tokens") or 0
    counts = (usage[f"{into}_tokens"] - cached, cached, 0, 0, usage[f"{out}_tokens"])
    return priced(GPT[known[-1] if known else "default"], counts)


def priced(prices: tuple[str, ...], counts: tuple[int, ...]) -> Decimal:
    """Return the sum of all counts times their prices."""
    return sum(
        (Decimal(price) * count / 1_000_000 for price, count in zip(prices, counts, strict=True)),
        Decimal(0),
    )


# --- the generator -------------------------------------------------------------------------------


class Generator:
    """Makes random answers of an API."""

    def __init__(self, chance: random.Random, kind: str, filler: str = "") -> None:
        self._chance = chance
        self._kind = kind
        self._filler = filler  # text of any size, for texts and echoes
        self._ascii = self.perhaps()
        self._indent = chance.choice([None, None, None, 1])
        self._separators = chance.choice([(",", ":"), (", ", ": "), (" ,", " : ")])
        self._line_end = chance.choice(["\n", "\n", "\r\n", "\r"])

    def perhaps(self, share: float = 0.5) -> bool:
        return self._chance.random() < share

    def text(self) -> str:
        return "".join(self._chance.choices(TEXTS, k=self._chance.randrange(4)))

    def count(self) -> int:
        return self._chance.choice([0, 1, 7, 1_000, 150_000, 5_000_000])

    def strange(self, depth: int = 0) -> Any:
        """Return any value; sometimes a decoy."""
        match self._chance.randrange(9 if depth < 3 else 5):
            case 0:
                return None
            case 1:
                return self._chance.choice([True, False, -1, 0.25, 1e300, 2**80])
            case 2 | 3:
                return self.text()
            case 4:
                return json.loads(FAKE_USAGE)
            case 5 | 6:
                return [self.strange(depth + 1) for _ in range(self._chance.randrange(3))]
        name = self._chance.choice(["usage", "item", "x", "error", "model", "", "é", "a" * 300])
        return {name: self.strange(depth + 1)}

    def object(self, members: dict[str, Any]) -> dict[str, Any]:
        """Return an object with further members, in random order."""
        further = {f"x_{self._chance.randrange(99)}": self.strange()
                   for _ in range(self._chance.choice([0, 0, 0, 1, 2]))}  # fmt: skip
        items = list({**further, **members}.items())
        if self.perhaps(0.3):
            self._chance.shuffle(items)
        return dict(items)

    def optional(self, **members: Any) -> dict[str, Any]:
        """Return the members, without some of them and with some of them null."""
        return {
            name: None if self.perhaps(0.2) else value
            for name, value in members.items()
            if self.perhaps(0.7)
        }

    def dumped(self, value: Any) -> str:
        text = json.dumps(
            value, ensure_ascii=self._ascii, indent=self._indent, separators=self._separators
        )
        if self.perhaps(0.1):  # names may be escaped, too
            text = text.replace('"usage"', '"us\\u0061ge"').replace('"type"', '"\\u0074ype"')
        return text

    def document(self) -> tuple[bytes, str | None]:
        body, asked = getattr(self, f"{self._kind}_document")()
        space = self._chance.choice(["", " ", "\n\n", "\r\n"])
        return (space + self.dumped(self.object(body)) + space).encode(), asked

    def stream(self) -> tuple[bytes, str | None]:
        parts, asked = getattr(self, f"{self._kind}_stream")()
        end = self._line_end
        lines = "\ufeff" if self.perhaps(0.1) else ""
        for part in parts:
            data = part if isinstance(part, str) else self.dumped(self.object(part))
            fields = ["data:" + self._chance.choice(["", " "]) + line for line in data.split("\n")]
            if not isinstance(part, str) and part.get("type") and self.perhaps(0.8):
                at = 0 if self.perhaps(0.8) else len(fields)
                fields.insert(at, f"event: {part['type']}")
            if self.perhaps(0.1):
                comment = self._chance.choice(
                    [": ping", ":", "id: 7", "retry: 5", "x", ": {usage}"]
                )
                fields.insert(self._chance.randrange(len(fields) + 1), comment)
            lines += end.join(fields) + end + end
            if self.perhaps(0.1):
                lines += f": alive{end}{end}"
        return lines.encode(), asked

    # --- Anthropic ---

    def messages_usage(self, output: int) -> dict[str, Any]:
        written, hour = self.count(), 0
        usage: dict[str, Any] = {"input_tokens": self.count(), "output_tokens": output}
        if self.perhaps(0.3):
            hour = self._chance.randrange(written + 1)
            usage["cache_creation"] = self.object(
                {"ephemeral_5m_input_tokens": written - hour, "ephemeral_1h_input_tokens": hour}
            )
            usage["cache_creation_input_tokens"] = written
        elif self.perhaps():
            usage["cache_creation_input_tokens"] = written
        usage |= self.optional(
            cache_read_input_tokens=self.count(),
            service_tier="standard",
            inference_geo=self._chance.choice(["us", "global", "not_available"]),
            server_tool_use=self.object({"web_search_requests": self._chance.randrange(5)}),
        )
        return self.object(usage)

    def messages_document(self) -> tuple[dict[str, Any], None]:
        content = [{"type": "text", "text": self.text() + self._filler}]
        return {
            "type": "message", "model": MODELS["messages"][1], "content": content,
            "stop_reason": self._chance.choice(["end_turn", "refusal", "max_tokens", "tool_use"]),
            "usage": self.messages_usage(self.count()),
        }, None  # fmt: skip

    def messages_stream(self) -> tuple[list[Any], None]:
        message = {"type": "message", "model": MODELS["messages"][1], "content": [],
                   "usage": self.messages_usage(1)}  # fmt: skip
        parts: list[Any] = [{"type": "message_start", "message": self.object(message)}]
        for index in range(self._chance.randrange(3)):
            kind, delta = self._chance.choice(
                [("text", "text_delta"), ("thinking", "thinking_delta"),
                 ("partial_json", "input_json_delta")]
            )  # fmt: skip
            parts.append({"type": "content_block_start", "index": index,
                          "content_block": {"type": "text", "text": ""}})  # fmt: skip
            for _ in range(self._chance.randrange(4)):
                parts.append(
                    {"type": "content_block_delta", "index": index,
                     "delta": self.object({"type": delta, kind: self.text() + self._filler})}
                )  # fmt: skip
                parts += self.noise({"type": "ping"})
            parts.append({"type": "content_block_stop", "index": index})
        output = self.count()
        if self.perhaps(0.2):
            parts.append({"type": "message_delta", "usage": {"output_tokens": output // 2}})
        usage = {"output_tokens": output, **self.optional(input_tokens=self.count())}
        parts.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
                      "usage": self.object(usage)})  # fmt: skip
        return [*parts, *self.noise({"type": "ping"}), {"type": "message_stop"}], None

    def noise(self, harmless: dict[str, Any]) -> list[dict[str, Any]]:
        """Return events that do not matter, some of an unknown type."""
        unknown = {"type": "something.new", "item": json.loads(FAKE_USAGE), "x": self.strange()}
        return [each for each in (harmless, unknown) if self.perhaps(0.2)]

    # --- OpenAI ---

    def openai_usage(self, into: str, out: str) -> dict[str, Any]:
        tokens = self.count()
        details = self.optional(cached_tokens=self._chance.randrange(tokens + 1))
        usage = {f"{into}_tokens": tokens, f"{out}_tokens": self.count()}
        return self.object(
            usage | self.optional(**{f"{into}_tokens_details": self.object(details)})
        )

    def tiers(self) -> dict[str, Any]:
        return self.optional(service_tier=self._chance.choice([*GPT, "auto"]))

    def asked(self) -> str | None:
        return self._chance.choice([None, None, "auto", *GPT])

    def chat_document(self) -> tuple[dict[str, Any], str | None]:
        said = {"role": "assistant", "content": self.text() + self._filler}
        return {
            "object": "chat.completion", "choices": [{"message": said, "finish_reason": "stop"}],
            "usage": self.openai_usage("prompt", "completion"), **self.tiers(),
        }, self.asked()  # fmt: skip

    def chat_stream(self) -> tuple[list[Any], str | None]:
        parts: list[Any] = []
        for _ in range(self._chance.randrange(5)):
            delta = {self._chance.choice(["content", "refusal"]): self.text() + self._filler}
            choice = self.object({"index": 0, "delta": self.object(delta)})
            parts.append({"choices": [choice], **self.tiers(), **self.optional(usage=None),
                          "obfuscation": self.text()})  # fmt: skip
        reason = self._chance.choice(["stop", "length", "content_filter", "tool_calls"])
        ended = {"index": 0, "delta": {}, "finish_reason": reason}
        parts.append({"choices": [ended], **self.tiers()})
        parts.append({"choices": [], "usage": self.openai_usage("prompt", "completion"),
                      **self.tiers()})  # fmt: skip
        return [*parts, *(["[DONE]"] if self.perhaps(0.9) else [])], self.asked()

    def response(self, **members: Any) -> dict[str, Any]:
        return self.object(
            {"object": "response", "instructions": self.text() + self._filler, "error": None,
             "output": [], **members, **self.tiers()}
        )  # fmt: skip

    def final_response(self) -> dict[str, Any]:
        actions = [None, "search", "open_page", "find_in_page"]
        output: list[dict[str, Any]] = []
        for _ in range(self._chance.randrange(4)):
            action = self._chance.choice(actions)
            fields = {} if action is None else {"action": self.object({"type": action})}
            output.append(self.object({"type": "web_search_call", **fields}))
        content = [{"type": "output_text", "text": self.text() + self._filler}]
        output.append(self.object({"type": "message", "content": content}))
        status = self._chance.choice(["completed", "completed", "incomplete"])
        usage = self.openai_usage("input", "output")
        return self.response(status=status, usage=usage, output=output)

    def responses_document(self) -> tuple[dict[str, Any], str | None]:
        return self.final_response(), self.asked()

    def responses_stream(self) -> tuple[list[Any], str | None]:
        parts: list[Any] = [{"type": "response.created", "response": self.response(usage=None)}]
        if self.perhaps():
            parts.append({"type": "response.in_progress", "response": self.response(usage=None)})
        final = self.final_response()
        for index, item in enumerate(final["output"]):
            added = {**item, "status": "in_progress", "action": None, "content": None}
            parts.append({"type": "response.output_item.added", "output_index": index,
                          "item": added})  # fmt: skip
            for _ in range(self._chance.randrange(3)):
                parts.append({"type": "response.output_text.delta", "output_index": index,
                              "delta": self.text() + self._filler})  # fmt: skip
                parts += self.noise({"type": "response.web_search_call.searching"})
            parts.append({"type": "response.output_item.done", "output_index": index,
                          "item": item})  # fmt: skip
        last = f"response.{final['status']}"
        return [*parts, {"type": last, "response": final}], self.asked()


# --- the properties ------------------------------------------------------------------------------


def booked(
    kind: str, chunks: Iterator[bytes], *, stream: bool, asked: str | None, broken: bool = False
) -> Outcome:
    """Return what is booked for an answer that comes in these chunks."""
    meter = meter_for(kind, stream=stream, hide_usage=False)
    for chunk in chunks:
        assert meter.feed(chunk) == chunk
    if not broken:
        meter.end()
    provider, model = MODELS[kind]
    record = CallRecord(
        "uuid", "now", "user", "slack_app", True, model, provider, stream, "trace", "organization",
        1, None, "version", "1000000",
    )  # fmt: skip
    admission = Admission(
        record=record,
        rates=PRICES.rates(provider, model),
        account="account",
        credits_per_usd=Decimal(120),
        bound=Decimal(1_000_000),
        bound_micro=120 * 10**12,
        size=1_000,
        input_bound=Decimal(1),
        dearest=PRICES.rates(provider, model, "priority" if provider == "openai" else None),
        asked=Usage(service_tier=asked),
    )
    ending = Ending(0.0, status=200, sent=True, failed=broken)
    return Settler(None, PRICES).outcome(admission, meter, ending)  # type: ignore[arg-type]


def cut(answer: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield an answer in pieces: whole, cut at some places, or at every byte."""
    step = chance.choice([1, 2, 7, 100, 5_000, len(answer)])
    at = 0
    while at < len(answer):
        size = max(1, step if step < 3 else chance.randrange(2 * step))
        yield answer[at : at + size]
        at += size


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=examples(170), deadline=None)
@given(chance=st.randoms(use_true_random=True), stream=st.booleans())
def test_the_booked_cost_is_what_the_documentation_says(
    kind: str, chance: random.Random, stream: bool
) -> None:
    generator = Generator(chance, kind)
    answer, asked = generator.stream() if stream else generator.document()
    outcome = booked(kind, cut(answer, chance), stream=stream, asked=asked)
    assert not outcome.estimated
    assert outcome.cost == oracle(kind, answer, stream=stream, asked=asked), answer


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=examples(60), deadline=None)
@given(chance=st.randoms(use_true_random=True), stream=st.booleans())
def test_an_answer_that_breaks_off_anywhere_is_booked_in_full_or_estimated(
    kind: str, chance: random.Random, stream: bool
) -> None:
    generator = Generator(chance, kind)
    answer, asked = generator.stream() if stream else generator.document()
    part = answer[: chance.randrange(len(answer))]
    outcome = booked(kind, cut(part, chance), stream=stream, asked=asked, broken=True)
    assert outcome.is_error
    if outcome.estimated:
        assert Decimal(0) < outcome.cost <= 1_000_000
    else:
        assert outcome.cost == oracle(kind, answer, stream=stream, asked=asked)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
def test_large_answers_cost_the_same_and_are_not_kept_in_memory(kind: str, stream: bool) -> None:
    """Answers have a megabyte or more here, and ten times as much in `make soak`."""
    chance = random.Random(f"{kind} {stream}")
    filler = 'a word, an é, a \\ and a " \n' * min(examples(40_000), 400_000)
    while True:
        generator = Generator(chance, kind, filler)
        answer, asked = generator.stream() if stream else generator.document()
        if len(answer) > len(filler):
            break
    expected = oracle(kind, answer, stream=stream, asked=asked)
    pieces = [answer[at : at + 50_000] for at in range(0, len(answer), 50_000)]
    booked(kind, iter([answer[:1_000]]), stream=stream, asked=asked, broken=True)  # loads prices
    tracemalloc.start()
    try:
        outcome = booked(kind, iter(pieces), stream=stream, asked=asked)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (outcome.cost, outcome.estimated) == (expected, False)
    assert peak < 600_000

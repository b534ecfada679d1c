"""Traces of calls, received by a real OTLP receiver: what was held, forwarded and settled."""

import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.conftest import wait_until
from tests.gateway.conftest import DENIED, ROOT, World, messages_body, world_of
from tests.gateway.fake_provider import Script, default_script
from tests.gateway.threads import AsgiThread

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
PROMPT = "a prompt that nobody may read"


class Collector(AsgiThread):
    """Receives traces over OTLP (https://opentelemetry.io/docs/specs/otlp/#otlphttp)."""

    def __init__(self) -> None:
        super().__init__(Starlette(routes=[Route("/v1/traces", self._traces, methods=["POST"])]))
        self.spans: list[Span] = []
        self.resources: set[tuple[str, str]] = set()
        self.keys: set[str | None] = set()
        self.raw = b""

    async def _traces(self, request: Request) -> Response:
        body = await request.body()
        self.raw += body
        self.keys.add(request.headers.get("authorization"))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources |= {
                (attribute.key, attribute.value.string_value)
                for attribute in resource.resource.attributes
            }
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return Response(b"", media_type="application/x-protobuf")

    def of(self, trace_id: str, count: int) -> dict[str, Span]:
        """Wait until a trace has this many spans; return them by name."""

        def found() -> list[Span]:
            return [span for span in self.spans if span.trace_id.hex() == trace_id]

        wait_until(lambda: len(found()) >= count, what=f"{count} spans, not {len(found())}")
        assert len(found()) == count
        return {span.name: span for span in found()}


def attributes(span: Span) -> dict[str, object]:
    """Return the attributes of a span."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def _traced(collector: Collector) -> Iterator[World]:
    with world_of(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
    ) as world:
        yield world


@pytest.fixture
def traced(_traced: World) -> World:
    _traced.provider.script = default_script
    return _traced


def test_a_call_is_traced_from_its_caller_to_the_provider(traced, collector) -> None:
    project = traced.tollgate.project(credits=100)
    token = traced.tollgate.token(project)
    answer = traced.post(
        token,
        body=messages_body(stream=True, messages=[{"role": "user", "content": PROMPT}]),
        headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"},
    )
    assert answer.status_code == 200
    spans = collector.of(TRACE, 4)
    call, upstream = spans["POST /v1/messages"], spans["chat claude-sonnet-4-5"]
    assert call.kind == Span.SPAN_KIND_SERVER
    assert call.parent_span_id.hex() == PARENT
    assert {span.parent_span_id for name, span in spans.items() if span is not call} == {
        call.span_id
    }
    assert (
        attributes(call).items()
        >= {
            "http.request.method": "POST",
            "url.path": "/slack_app/v1/messages",
            "url.scheme": "http",
            "http.route": "/v1/messages",
            "http.response.status_code": 200,
            "tollgate.product": "slack_app",
            "tollgate.project_id": project.id,
        }.items()
    )
    assert upstream.kind == Span.SPAN_KIND_CLIENT
    assert attributes(upstream) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-4-5",
        "gen_ai.request.max_tokens": 100,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.cache_creation.input_tokens": 0,
        "gen_ai.usage.cache_write.input_tokens": 0,
        "http.response.status_code": 200,
    }
    assert attributes(spans["hold"])["tollgate.bound_credits"] > 0.072
    assert attributes(spans["settle"]) == {
        "tollgate.cost_usd": "0.000600",
        "tollgate.estimated": False,
    }
    # The provider may continue the trace below the span of this exchange.
    sent = traced.provider.requests[-1].headers
    assert sent["traceparent"] == f"00-{TRACE}-{upstream.span_id.hex()}-01"
    assert sent["tracestate"] == "vendor=1"
    [event] = traced.booked(project)
    assert event["properties"]["$ai_trace_id"] == TRACE
    assert ("service.name", "tollgate-gateway") in collector.resources
    assert collector.keys == {None}


def test_a_call_without_a_trace_starts_a_new_one(traced, collector) -> None:
    project = traced.tollgate.project(credits=100)
    traced.post(traced.tollgate.token(project))
    [event] = traced.booked(project)
    spans = collector.of(event["properties"]["$ai_trace_id"], 4)
    assert spans["POST /v1/messages"].parent_span_id == b""


def test_refusals_and_failures_name_their_reason(traced, collector) -> None:
    project = traced.tollgate.project(credits=100)
    token = traced.tollgate.token(project)
    traced.provider.script = lambda _: Script(raw=b"nonsense\r\n\r\n")
    traced.post(token, headers={"traceparent": f"00-{'b' * 32}-{PARENT}-01"})
    failed = collector.of("b" * 32, 4)
    assert attributes(failed["chat claude-sonnet-4-5"])["error.type"] == "provider_failed"
    assert attributes(failed["POST /v1/messages"])["error.type"] == "provider_failed"
    limited = traced.tollgate.project(credits=100)
    traced.tollgate.limit(limited)
    token = traced.tollgate.token(limited)
    traced.post(token, headers={"traceparent": f"00-{'c' * 32}-{PARENT}-01"})
    refused = collector.of("c" * 32, 2)
    assert attributes(refused["hold"])["error.type"] == "billable_credits"
    call = attributes(refused["POST /v1/messages"])
    assert (call["http.response.status_code"], call["error.type"]) == (DENIED, "billable_credits")


def test_prompts_and_credentials_are_never_in_a_trace(traced, collector) -> None:
    project = traced.tollgate.project(credits=100)
    token = traced.tollgate.token(project)
    unmetered = traced.tollgate.token(project, "llm_gateway")
    trace = {"traceparent": f"00-{'d' * 32}-{PARENT}-01"}
    said = [{"role": "user", "content": PROMPT}]
    traced.post(token, body=messages_body(messages=said), headers=trace)
    traced.post(token, f"/slack_app/{token}", headers=trace)
    traced.post(token, f"/{token}/v1/messages?key={token}", headers=trace)
    traced.post(
        unmetered, "/llm_gateway/v1/messages", messages_body(model=unmetered), headers=trace
    )
    collector.of("d" * 32, 4 + 1 + 1 + 4)
    for secret in (token, unmetered, PROMPT, "sk-ant-key-of-the-operator"):
        assert secret.encode() not in collector.raw
    assert b"Hello there" not in collector.raw


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/slack-posthog-code/v1/messages", "/slack-posthog-code/v1/messages"),
        ("/v1/v1/messages?key=secret", "/v1/v1/messages"),
        ("/slack_app/v1/models/claude-sonnet-4-5", "/slack_app/v1/models/REDACTED"),
        ("/d41d8cd98f00b204e9800998ecf8427e/x", "/REDACTED/x"),
    ],
)
def test_unknown_words_of_a_path_are_redacted(traced, collector, path, shown) -> None:
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-{PARENT}-01", "x-forwarded-proto": "HTTPS"}
    traced.post(traced.tollgate.token(traced.tollgate.project(credits=100)), path, headers=headers)

    def server() -> list[Span]:
        spans = [span for span in collector.spans if span.trace_id.hex() == trace]
        return [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]

    wait_until(server, what="the span of the call")
    recorded = attributes(server()[0])
    assert (recorded["url.path"], recorded["url.scheme"]) == (shown, "https")


def test_without_a_collector_opentelemetry_is_not_imported() -> None:
    look = (
        "import sys, gateway.app, gateway.__main__;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


def test_otel_variables_name_the_service_and_the_collectors_key() -> None:
    key = "the-key-of-the-collector"
    with (
        Collector() as collector,
        world_of(
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{key},{key} {key}",
            OTEL_SERVICE_NAME="gateway-of-the-north",
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=staging",
            OTEL_BSP_SCHEDULE_DELAY="50",
        ) as world,
    ):
        world.post(world.tollgate.token(world.tollgate.project(credits=100)))
        wait_until(lambda: collector.spans, what="a trace")
        assert collector.keys == {f"Bearer {key}"}
        assert collector.resources >= {
            ("service.name", "gateway-of-the-north"),
            ("deployment.environment.name", "staging"),
        }
        log = world.log.read_text()
        assert "OTEL_EXPORTER_OTLP_HEADERS" in log
        assert key not in log


def test_an_unreachable_collector_fails_no_call() -> None:
    with world_of(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_BSP_SCHEDULE_DELAY="50",
    ) as world:
        project = world.tollgate.project(credits=100)
        token = world.tollgate.token(project)
        assert [world.post(token).status_code for _ in range(5)] == [200] * 5
        assert token not in world.log.read_text()

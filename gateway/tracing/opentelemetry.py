"""OpenTelemetry traces of calls: what was held, forwarded and settled, never prompts or answers.

Imported only if the standard `OTEL_*` variables name a collector. The SDK itself reads the other
variables (sampler, headers, batches). Spans follow the conventions for HTTP servers and, for calls
to the provider, those for generative AI (https://opentelemetry.io/docs/specs/semconv/gen-ai/).
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from gateway.apis import Api
from gateway.errors import Refusal
from gateway.metering.usage import Usage
from gateway.network.headers import Headers
from gateway.settings import MICRO
from gateway.tracing import span_attributes as names
from gateway.tracing.trace import TracedCall

_NAME = "tollgate-gateway"
# A caller can write anything as a model; it is shown only if it looks like a model's name.
_MODEL = re.compile(r"(?!phx_|pha_|phr_|phc_|sk-)[A-Za-z0-9][A-Za-z0-9._:/@-]{0,79}")
# A caller can write anything in a path. Only words that our paths can contain are shown.
_SEGMENT = re.compile(r"[a-z_-]{0,24}|v[0-9]")
_SCHEMES = {b"http": "http", b"https": "https"}
_PROPAGATED = (b"traceparent", b"tracestate")
_propagator = TraceContextTextMapPropagator()


class Tracing:
    """The traces of one process."""

    def __init__(self) -> None:
        _keep_headers_out_of_the_log()
        resource = Resource.create()
        if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": _NAME}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(_NAME)

    def begin(self, method: str, path: str, headers: dict[bytes, bytes]) -> "CallTrace":
        """Return a new trace for a call, which continues the caller's trace if there is one."""
        carrier = {
            name.decode(): headers[name].decode("latin-1")
            for name in _PROPAGATED
            if name in headers
        }
        attributes = {
            names.HTTP_METHOD: method,
            names.URL_PATH: _shown(path),
            # A proxy that terminates TLS says so in this header.
            names.URL_SCHEME: _SCHEMES.get(headers.get(b"x-forwarded-proto", b"").lower(), "http"),
        }
        return CallTrace(self._tracer, attributes, _propagator.extract(carrier, Context()))

    def close(self) -> None:
        """Send the remaining spans, which takes at most the exporter's timeout."""
        self._provider.shutdown()


def _shown(path: str) -> str:
    segments = path[:1000].split("/")
    return "/".join(one if _SEGMENT.fullmatch(one) else "REDACTED" for one in segments)


def _keep_headers_out_of_the_log() -> None:
    """Keep a malformed OTEL_EXPORTER_OTLP_HEADERS, which may be a secret, out of the SDK's log."""

    def without_the_header(record: logging.LogRecord) -> bool:
        record.msg = "a header of OTEL_EXPORTER_OTLP_HEADERS is not written as name=value: left out"
        record.args = ()
        return True

    logging.getLogger("opentelemetry.util.re").addFilter(without_the_header)


class CallTrace:
    """The span of one call, and the spans below it."""

    def __init__(self, tracer: Tracer, attributes: dict[str, str], context: Context) -> None:
        self._tracer = tracer
        self._method = attributes[names.HTTP_METHOD]
        self._span = tracer.start_span(self._method, context, SpanKind.SERVER, attributes)
        self._context = set_span_in_context(self._span, context)
        self._upstream = self._span

    def identified(self, organization_id: str, project_id: int, task_run_id: str | None) -> None:
        """Record identifiers of the caller, not the credential."""
        self._span.set_attribute(names.ORGANIZATION_ID, organization_id)
        self._span.set_attribute(names.PROJECT_ID, project_id)
        if task_run_id is not None:
            self._span.set_attribute(names.TASK_RUN_ID, task_run_id)

    @contextmanager
    def _step(self, name: str, kind: SpanKind, attributes: Attributes) -> Iterator[Span]:
        span = self._tracer.start_span(name, self._context, kind, attributes)
        try:
            yield span
        except BaseException as error:
            reason = error.reason if isinstance(error, Refusal) else type(error).__name__
            span.set_attribute(names.ERROR_TYPE, reason)
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            span.end()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Span the reservation."""
        with self._step("hold", SpanKind.INTERNAL, None) as span:
            self._hold = span
            yield

    def held(self, micro: int) -> None:
        """Record what was reserved, in micro-credits."""
        self._hold.set_attribute(names.BOUND_CREDITS, micro / MICRO)

    @contextmanager
    def upstream(
        self, call: TracedCall, api: Api, model: str | None, output_tokens: int | None
    ) -> Iterator[None]:
        """Span the exchange with the provider."""
        name, attributes = f"{api.method} {api.label}", {names.PROVIDER: api.provider}
        if model is not None:
            shown = model if _MODEL.fullmatch(model) else "other"
            name = f"chat {shown}"
            attributes |= {names.OPERATION: "chat", names.REQUEST_MODEL: shown}
        with self._step(name, SpanKind.CLIENT, attributes) as span:
            self._upstream = span
            if output_tokens is not None:
                span.set_attribute(names.REQUEST_MAX_TOKENS, output_tokens)
            call.raw_headers = self._continued(call.raw_headers)
            try:
                yield
            finally:
                if call.started:
                    span.set_attribute(names.HTTP_STATUS, call.status)
                    if call.status >= 400:
                        span.set_attribute(names.ERROR_TYPE, str(call.status))
                        span.set_status(Status(StatusCode.ERROR))

    def _continued(self, headers: Headers) -> Headers:
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, set_span_in_context(self._upstream, self._context))
        kept = [(name, value) for name, value in headers if name not in _PROPAGATED]
        return kept + [(name.encode(), value.encode()) for name, value in carrier.items()]

    @contextmanager
    def settling(self) -> Iterator[None]:
        """Span the settlement."""
        with self._step("settle", SpanKind.INTERNAL, None) as span:
            self._settle = span
            yield

    def settled(self, usage: Usage, cost: Decimal, *, estimated: bool) -> None:
        """Record what was used, and what it cost in dollars."""
        self._settle.set_attribute(names.COST_USD, str(cost))
        self._settle.set_attribute(names.ESTIMATED, estimated)
        self._upstream.set_attribute(names.INPUT_TOKENS, usage.all_input)
        self._upstream.set_attribute(names.OUTPUT_TOKENS, usage.output)
        self._upstream.set_attribute(names.CACHE_READ_TOKENS, usage.cache_read)
        for name in names.CACHE_WRITE_TOKENS:
            self._upstream.set_attribute(name, usage.cache_write_5m + usage.cache_write_1h)

    def trace_id(self) -> str | None:
        """Return the id of the trace, for the event."""
        return format(self._span.get_span_context().trace_id, "032x")

    def end(self, call: TracedCall) -> None:
        """Record how the call ended."""
        if call.api:
            self._span.update_name(f"{self._method} {call.api}")
            self._span.set_attribute(names.HTTP_ROUTE, call.api)
        self._span.set_attribute(names.CALL_ID, call.call_id)
        self._span.set_attribute(names.PRODUCT, call.product)
        self._span.set_attribute(names.HTTP_STATUS, call.status)
        if call.reason is not None:
            self._span.set_attribute(names.ERROR_TYPE, call.reason)
        if call.status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

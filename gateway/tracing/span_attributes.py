"""The names of span attributes: OpenTelemetry's conventions, then our own.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/ and …/semconv/gen-ai/gen-ai-spans/
"""

ERROR_TYPE = "error.type"
HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = (
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
)
"""The convention renamed this attribute, and readers of traces may know either name."""

BOUND_CREDITS = "tollgate.bound_credits"
CALL_ID = "tollgate.call_id"
COST_USD = "tollgate.cost_usd"
ESTIMATED = "tollgate.estimated"
ORGANIZATION_ID = "tollgate.organization_id"
PRODUCT = "tollgate.product"
PROJECT_ID = "tollgate.project_id"
TASK_RUN_ID = "tollgate.task_run_id"

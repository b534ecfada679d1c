"""The gateway's settings: each environment variable is read once, and typed."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from environs import Env, EnvError, ValidationError, validate

from gateway.errors import Dialect
from gateway.network.dialing import EgressProxy

MICRO = 1_000_000

_SENTRY_DSN = validate.Regexp(
    r"(https?://[^@/\s]+@[^@\s]+/\d+)?$", error="Write a DSN such as https://key@sentry.io/7."
)
_DENIAL_STATUSES = {"402": 402, "429": 429}
# The names of the APIs as operators write them.
_DIALECTS: dict[str, Dialect] = {"messages": "anthropic", "chat": "chat", "responses": "responses"}


@dataclass(frozen=True, slots=True)
class Upstream:
    """How the gateway reaches a provider. If the key is empty, none is sent (a demo model)."""

    name: str
    url: str
    key: str


@dataclass(frozen=True, slots=True)
class PostHog:
    """A PostHog project that gets every generation event. At most `most` events wait for it."""

    host: str
    api_key: str
    most: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The gateway's configuration. Durations are seconds, sizes are bytes."""

    host: str
    port: int
    processes: int
    redis_url: str
    group: str
    tollgate_url: str
    service_token: str
    upstreams: dict[str, Upstream]
    billing_url: str
    bot_name: str
    denial_status: dict[Dialect, int]
    metrics_tokens: list[str]
    price_overrides: dict[str, Any]
    small_models: list[str]
    allowed_fields: frozenset[str]
    run_cap_credits: Decimal | None
    requests_per_minute: int
    max_concurrent_per_credential: int
    max_body_bytes: int
    body_budget: int
    default_max_output_tokens: int
    connect_timeout: float
    egress: EgressProxy | None
    first_byte_timeout: float
    idle_timeout: float
    request_timeout: float
    drain_timeout: float
    shutdown_timeout: float
    lease: float
    open_window: float
    answers_kept: float
    posthog: PostHog | None
    traces: bool
    sentry_dsn: str
    sentry_environment: str


def from_environment() -> Settings:
    """Return the settings. Raises one `environs.EnvValidationError` that names every mistake."""
    env = Env(eager=False)
    env.add_parser("denial_status", read_denial_status)
    tollgate_url = env.str("TOLLGATE_URL", "http://127.0.0.1:8000")
    max_body_bytes = env.int("GATEWAY_MAX_BODY_BYTES", 32 * 1024 * 1024)
    settings = Settings(
        host=env.str("GATEWAY_HOST", "127.0.0.1"),
        port=env.int("GATEWAY_PORT", 8100),
        processes=env.int("GATEWAY_PROCESSES", 1),
        redis_url=env.str("GATEWAY_REDIS_URL", "redis://127.0.0.1:6381/0"),
        group=env.str("GATEWAY_GROUP", "default"),
        tollgate_url=tollgate_url.rstrip("/"),
        service_token=_first(env.list("GATEWAY_SERVICE_TOKEN", validate=validate.Length(1))),
        upstreams={
            "anthropic": Upstream(
                "anthropic",
                _base(env.str("ANTHROPIC_UPSTREAM_URL", "https://api.anthropic.com")),
                env.str("ANTHROPIC_API_KEY", ""),
            ),
            "openai": Upstream(
                "openai",
                _base(env.str("OPENAI_UPSTREAM_URL", "https://api.openai.com")),
                env.str("OPENAI_API_KEY", ""),
            ),
        },
        billing_url=env.str("BILLING_URL", f"{tollgate_url}/admin/"),
        bot_name=env.str("BOT_NAME", "Tollgate"),
        denial_status=env.denial_status("GATEWAY_DENIAL_STATUS", ""),
        metrics_tokens=env.list("METRICS_TOKEN", []),
        price_overrides=dict(env.json("GATEWAY_PRICE_OVERRIDES", {}) or {}),
        small_models=env.list(
            "GATEWAY_SMALL_MODELS",
            ["claude-haiku-*", "claude-*-haiku-*", "gpt-*-mini*", "gpt-*-nano*", "o*-mini*"],
        ),
        allowed_fields=frozenset(env.list("GATEWAY_ALLOWED_FIELDS", [])),
        run_cap_credits=(
            env.decimal("GATEWAY_RUN_CAP_CREDITS")
            if env.str("GATEWAY_RUN_CAP_CREDITS", "")
            else None
        ),
        requests_per_minute=env.int("GATEWAY_REQUESTS_PER_MINUTE", 6000),
        max_concurrent_per_credential=env.int("GATEWAY_MAX_CONCURRENT", 2000),
        max_body_bytes=max_body_bytes,
        body_budget=env.int(
            "GATEWAY_BODY_BUDGET", 128 * 1024 * 1024, validate=validate.Range(min=max_body_bytes)
        ),
        default_max_output_tokens=env.int("GATEWAY_DEFAULT_MAX_OUTPUT_TOKENS", 32_000),
        connect_timeout=env.float("GATEWAY_CONNECT_TIMEOUT", 5.0),
        egress=_egress(
            env.str("https_proxy", "", validate=_check_proxy)
            or env.str("HTTPS_PROXY", "", validate=_check_proxy),
            env.str("no_proxy", "") or env.str("NO_PROXY", ""),
        ),
        first_byte_timeout=env.float("GATEWAY_FIRST_BYTE_TIMEOUT", 600.0),
        idle_timeout=env.float("GATEWAY_IDLE_TIMEOUT", 120.0),
        request_timeout=env.float("GATEWAY_REQUEST_TIMEOUT", 60.0),
        drain_timeout=env.float("GATEWAY_DRAIN_TIMEOUT", 60.0),
        shutdown_timeout=env.float("GATEWAY_SHUTDOWN_TIMEOUT", 25.0),
        lease=env.float("GATEWAY_LEASE", 15.0),
        open_window=env.float("GATEWAY_OPEN_WINDOW", 60.0),
        answers_kept=env.float("GATEWAY_ANSWERS_KEPT", 600.0),
        posthog=_posthog(
            env.str("POSTHOG_HOST", "https://us.i.posthog.com"),
            env.str("POSTHOG_API_KEY", ""),
            env.int("POSTHOG_MAX_WAITING", 100_000),
        ),
        # Only whether to trace. OpenTelemetry's SDK reads these and its other variables itself.
        traces=bool(
            env.str("OTEL_EXPORTER_OTLP_ENDPOINT", "")
            or env.str("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
        )
        and env.str("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
        and not env.bool("OTEL_SDK_DISABLED", False),
        sentry_dsn=env.str("SENTRY_DSN", "", validate=_SENTRY_DSN),
        sentry_environment=env.str("SENTRY_ENVIRONMENT", "production"),
    )
    env.seal()
    return settings


def read_denial_status(written: str) -> dict[Dialect, int]:
    """Return the status of denials for each API, from text like `429` or `messages=402,chat=429`.

    Raises `EnvError` if the setting has another form.
    """
    if not written:
        return {}
    if written in _DENIAL_STATUSES:
        return dict.fromkeys(_DIALECTS.values(), _DENIAL_STATUSES[written])
    found: dict[Dialect, int] = {}
    for part in written.split(","):
        api, _, status = (word.strip() for word in part.partition("="))
        if api not in _DIALECTS or status not in _DENIAL_STATUSES or _DIALECTS[api] in found:
            raise EnvError(
                "Write 402 or 429, or one for each API: messages=402,chat=429,responses=429."
            )
        found[_DIALECTS[api]] = _DENIAL_STATUSES[status]
    return found


def _posthog(host: str, api_key: str, most: int) -> PostHog | None:
    return PostHog(host.rstrip("/"), api_key, most) if api_key else None


def _check_proxy(written: str) -> None:
    if written:
        try:
            EgressProxy.of(written, "")
        except ValueError as error:
            raise ValidationError(f"The gateway's proxy cannot be used: {error}.") from None


def _egress(proxy: str | None, exempt: str) -> EgressProxy | None:
    return EgressProxy.of(proxy, exempt) if proxy else None


def _first(tokens: list[str] | None) -> str:
    """Return the token to send: the first of the two that are valid during a rotation."""
    return tokens[0] if tokens else ""


def _base(url: str) -> str:
    """Return the address before `/v1/…`; operators write it with or without `/v1`."""
    return url.rstrip("/").removesuffix("/v1")

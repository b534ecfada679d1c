"""Django settings: the one place where the Django side reads the environment.

Every variable is read once, with its type, and all mistakes are reported together. `.env.example`
lists every variable; a test compares the two. `config/checks.py` finds mistakes that one value
alone doesn't show, such as a missing signing secret or a Redis that evicts keys.
"""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote, urlsplit

import dj_database_url
import django_stubs_ext
from environs import Env, validate

from config import logs  # configures structlog on import
from config.environment import (
    agent_commands,
    comma_separated,
    database_address,
    host_and_port,
    not_empty,
    redis_address,
    seal,
    sentry_dsn,
    slack_api_address,
    slack_app_token,
    web_address,
)

django_stubs_ext.monkeypatch()  # lets admin classes and forms name the type of their model

BASE_DIR = Path(__file__).resolve().parent.parent

env = Env(eager=False)

# --- Django itself -------------------------------------------------------------------------------
SECRET_KEY = env.str("SECRET_KEY", validate=not_empty)
SECRET_KEY_FALLBACKS = comma_separated(env, "SECRET_KEY_FALLBACKS")
DEBUG = env.bool("DEBUG", False)
ALLOWED_HOSTS = comma_separated(env, "ALLOWED_HOSTS") or ["localhost", "127.0.0.1"]
PUBLIC_URL = env.str("PUBLIC_URL", "http://localhost:8000", validate=web_address)

NUM_PROXIES = env.int("NUM_PROXIES", 0, validate=validate.Range(min=0))

WEB_BODY_TIMEOUT = env.float("WEB_BODY_TIMEOUT", 20.0, validate=validate.Range(min=1.0))

# --- Stores --------------------------------------------------------------------------------------
DATABASE_URL = env.str(
    "DATABASE_URL",
    f"sqlite:///{quote(str(BASE_DIR / '.devstack' / 'db.sqlite3'))}",
    validate=database_address,
)
REDIS_URL = env.str("REDIS_URL", "redis://127.0.0.1:6380/0", validate=redis_address)

# --- Temporal (TLS and API key come from temporalio's own environment configuration) --------------
TEMPORAL_ADDRESS = env.str("TEMPORAL_ADDRESS", "127.0.0.1:7233", validate=host_and_port)
TEMPORAL_NAMESPACE = env.str("TEMPORAL_NAMESPACE", "default", validate=not_empty)
TEMPORAL_UI_URL = env.str("TEMPORAL_UI_URL", "http://127.0.0.1:8233", validate=web_address)
TEMPORAL_TASK_QUEUE = env.str("TEMPORAL_TASK_QUEUE", "tollgate", validate=not_empty)

# --- Slack ---------------------------------------------------------------------------------------
SLACK_API_URL = env.str("SLACK_API_URL", "https://slack.com/api/", validate=slack_api_address)
SLACK_SIGNING_SECRETS = comma_separated(env, "SLACK_SIGNING_SECRET")
SLACK_APP_TOKEN = env.str("SLACK_APP_TOKEN", "", validate=slack_app_token)
SLACK_CLIENT_ID = env.str("SLACK_CLIENT_ID", "")
SLACK_CLIENT_SECRET = env.str("SLACK_CLIENT_SECRET", "")
PROGRESS_AFTER_SECONDS = env.int("PROGRESS_AFTER_SECONDS", 10, validate=validate.Range(min=1))
BOT_NAME = env.str("BOT_NAME", "Tollgate", validate=not_empty)

# --- The gateway ---------------------------------------------------------------------------------
GATEWAY_URL = env.str("GATEWAY_URL", "http://127.0.0.1:8100", validate=web_address)
GATEWAY_SERVICE_TOKENS = comma_separated(env, "GATEWAY_SERVICE_TOKEN")

# --- Credits -------------------------------------------------------------------------------------
BILLING_URL = env.str("BILLING_URL", "", validate=web_address)
START_CREDITS = env.decimal("START_CREDITS", Decimal(1))

# --- Coding tasks --------------------------------------------------------------------------------
AGENT_MODEL = env.str("AGENT_MODEL", "claude-sonnet-4-6", validate=not_empty)
AGENT_OPENAI_MODEL = env.str("AGENT_OPENAI_MODEL", "gpt-5", validate=not_empty)
ROUTING_MODEL = env.str("ROUTING_MODEL", "claude-haiku-4-5", validate=not_empty)
GIT_ALLOWED_PROTOCOLS = comma_separated(env, "GIT_ALLOWED_PROTOCOLS") or ["https", "ssh"]
REPOSITORIES_DIRECTORY = env.str(
    "REPOSITORIES_DIRECTORY", str(BASE_DIR / ".devstack" / "git"), validate=not_empty
)
COMMIT_NAME = env.str("COMMIT_NAME", "")
COMMIT_EMAIL = env.str("COMMIT_EMAIL", "")
PUBLISH_MOST_FILES = env.int("PUBLISH_MOST_FILES", 100, validate=validate.Range(min=1))
DEFAULT_AGENT = env.str("DEFAULT_AGENT", "reader", validate=not_empty)
AGENT_COMMANDS = dict(env.json("AGENT_COMMANDS", {}, validate=agent_commands) or {})
AGENT_EXCHANGE_DIRECTORY = env.str(
    "AGENT_EXCHANGE_DIRECTORY", str(BASE_DIR / ".devstack" / "exchange"), validate=not_empty
)
AGENT_TURNS_PER_PROJECT = env.int("AGENT_TURNS_PER_PROJECT", 10, validate=validate.Range(min=0))
SANDBOX_UID = env.int("SANDBOX_UID", 64_646, validate=validate.Range(min=1))
TASK_IDLE_MINUTES = env.int("TASK_IDLE_MINUTES", 60, validate=validate.Range(min=1))

# --- Metrics -------------------------------------------------------------------------------------
METRICS_TOKENS = comma_separated(env, "METRICS_TOKEN")
PROMETHEUS_MULTIPROC_DIR = env.str("PROMETHEUS_MULTIPROC_DIR", "")
METRICS_PORT = env.int("METRICS_PORT", 0, validate=validate.Range(min=0, max=65_535))

# --- Error reports -------------------------------------------------------------------------------
SENTRY_DSN = env.str("SENTRY_DSN", "", validate=sentry_dsn)
SENTRY_ENVIRONMENT = env.str("SENTRY_ENVIRONMENT", "production", validate=not_empty)
LOG_FORMAT = env.str("LOG_FORMAT", "text", validate=validate.OneOf(("text", "json")))

# Don't compute anything from the values above this line: wrong ones are None until reported here.
seal(env)

logs.mask_secrets(
    [
        SECRET_KEY,
        *SECRET_KEY_FALLBACKS,
        *GATEWAY_SERVICE_TOKENS,
        *SLACK_SIGNING_SECRETS,
        SLACK_APP_TOKEN,
        SLACK_CLIENT_SECRET,
        *METRICS_TOKENS,
    ]
)
LOGGING = logs.in_format(LOG_FORMAT)
if SENTRY_DSN:
    LOGGING = logs.with_error_reports(LOGGING, SENTRY_DSN, SENTRY_ENVIRONMENT)
PUBLIC_URL = PUBLIC_URL.rstrip("/")
GATEWAY_URL = GATEWAY_URL.rstrip("/")
TEMPORAL_UI_URL = TEMPORAL_UI_URL.rstrip("/")
BILLING_URL = BILLING_URL or f"{PUBLIC_URL}/admin/"
COMMIT_NAME = COMMIT_NAME or BOT_NAME
COMMIT_EMAIL = COMMIT_EMAIL or f"bot@{urlsplit(PUBLIC_URL).hostname}"
if PROMETHEUS_MULTIPROC_DIR:
    Path(PROMETHEUS_MULTIPROC_DIR).mkdir(parents=True, exist_ok=True)
CSRF_TRUSTED_ORIGINS = ["{0.scheme}://{0.netloc}".format(urlsplit(PUBLIC_URL))]

INSTALLED_APPS = [
    "console.apps.ConsoleConfig",  # before the admin, whose templates it extends
    "console.apps.TollgateAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "oauth2_provider",
    "projects",
    "quota",
    "billing",
    "coding_tasks",
    "workflows",
    "slack_bot",
    "config.apps.ConfigConfig",
]

MIDDLEWARE = [
    "config.probes.ProbesMiddleware",
    "config.request_metrics.RequestMetricsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = "config.formats"
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # serve files from their packages, so there is no collectstatic

SILENCED_SYSTEM_CHECKS = [
    "oauth2_provider.W008",  # OAuthApplication.clean allows http only for loopback addresses
    "security.W004",  # TLS ends at a proxy, which also redirects to https and sends HSTS
    "security.W008",
]
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")

DATABASES = {"default": dj_database_url.parse(DATABASE_URL, conn_max_age=60)}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # IMMEDIATE takes the write lock at BEGIN, so concurrent writers queue instead of failing.
    # The cache (up to 32 MB per connection) holds the ledger's index, which is read at random.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": (
            "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA cache_size=-32768"
        ),
    }
else:
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    DATABASES["default"].setdefault("OPTIONS", {})["connect_timeout"] = 5

AUTH_USER_MODEL = "projects.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "admin:index"

OAUTH2_PROVIDER_APPLICATION_MODEL = "projects.OAuthApplication"
OAUTH2_PROVIDER_ACCESS_TOKEN_MODEL = "projects.OAuthAccessToken"  # noqa: S105
OAUTH2_PROVIDER_REFRESH_TOKEN_MODEL = "projects.OAuthRefreshToken"  # noqa: S105
OAUTH2_PROVIDER_ID_TOKEN_MODEL = "projects.OAuthIDToken"  # noqa: S105
OAUTH2_PROVIDER_GRANT_MODEL = "projects.OAuthGrant"
OAUTH2_PROVIDER = {
    "ACCESS_TOKEN_GENERATOR": "projects.tokens.generate_access_token",
    "REFRESH_TOKEN_GENERATOR": "projects.tokens.generate_refresh_token",
    "ACCESS_TOKEN_EXPIRE_SECONDS": int(timedelta(hours=10).total_seconds()),
    "REFRESH_TOKEN_EXPIRE_SECONDS": int(timedelta(days=30).total_seconds()),
    "REFRESH_TOKEN_REUSE_PROTECTION": True,
    "OAUTH2_SERVER_CLASS": "oauthlib.oauth2.WebApplicationServer",  # no other grants
    "OAUTH2_VALIDATOR_CLASS": "projects.oauth.authorization.ProjectBoundValidator",
    "OIDC_ISS_ENDPOINT": PUBLIC_URL,  # the issuer of RFC 9207; OpenID Connect stays off
    "PKCE_REQUIRED": True,
    "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": True,  # hashed at rest
    "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PKCE_METHOD": True,
    "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT": True,
    "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
    "COMPLIANT_BCP_RFC9700_REFRESH_TOKEN": True,
    "COMPLIANT_BCP_RFC9700_REDIRECT_URI_MATCHING": True,
    "COMPLIANT_BCP_RFC9700_PKCE_REQUIRED": True,
    "SCOPES": {
        "project:read": "Read the project and its quota",
        "llm_gateway:read": "Call the LLM gateway for the project",
        "billing:read": "Read the project's usage",
        "task:read": "Read the project's coding tasks",
        "task:write": "Start, continue and stop coding tasks of the project",
    },
    "DEFAULT_SCOPES": ["project:read", "llm_gateway:read"],
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "projects.authentication.schemes.ProjectCredentialAuthentication",
        "projects.authentication.schemes.SessionPrincipalAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "NUM_PROXIES": NUM_PROXIES,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Tollgate",
    "DESCRIPTION": "AI credits for a coding bot that lives in Slack.",
    "VERSION": "1",
    "DEFAULT_GENERATOR_CLASS": "config.api_document.SharedSchemaGenerator",
    "SERVERS": [{"url": "/", "description": "The server that sent this document."}],
    "CONTACT": {"name": "The operator of this server", "url": PUBLIC_URL},
    "TAGS": [
        {"name": "quota", "description": "What a project may still use, and what changed."},
        {"name": "usage", "description": "What was used, and by whom."},
        {"name": "coding tasks", "description": "Work on a project's repositories."},
        {"name": "OAuth", "description": "What a credential is and covers."},
    ],
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],  # public, even to a caller with a credential for something else
    "POSTPROCESSING_HOOKS": [],  # keep enums inline: shared ones lose their type
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_DEFAULT_QUEUE = "celery"
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# The broker can be down for any length of time, and refuses commands while it starts.
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
# A hint (`projects.hints`) must not wait for a broker that is down.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_connect_timeout": 1,
    "socket_timeout": 5,
    # Otherwise Kombu would store unacknowledged messages in Redis, and the worker would exit with
    # an AttributeError if the connection broke meanwhile. A sweep does unfinished work anyway.
    "ack_emulation": False,
}
CELERY_TASK_PUBLISH_RETRY = False

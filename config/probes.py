"""`/_health`, `/_ready` and `/metrics`, answered in front of everything else.

As a middleware they need no session and no known host name: a probe calls by address.
"""

import hmac
from collections.abc import Callable

import redis
from django.conf import settings
from django.db import Error as DatabaseFailure
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from projects.redis_connection import redis_connection

View = Callable[[HttpRequest], HttpResponse]


class ProbesMiddleware:
    """Answers the probes; hands every other request on."""

    def __init__(self, get_response: View) -> None:
        """Take what answers the other requests."""
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer."""
        probe = PROBES.get(request.path)
        if probe is None:
            return self._get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        return probe(request)


def health(_request: HttpRequest) -> HttpResponse:
    """Answer 200 while the process can answer at all."""
    return JsonResponse({"status": "ok"})


def ready(_request: HttpRequest) -> HttpResponse:
    """Answer 200 when the database answers, else 503.

    Redis is reported and does not decide: without it every gate asks the database, and a load
    balancer that took all processes out of service would turn a slower answer into none.
    """
    database, in_redis = _database_state(), _redis_state()
    state = {
        "status": "ok" if database == "ok" else "unavailable",
        "database": database,
        "redis": in_redis,
    }
    return JsonResponse(state, status=200 if database == "ok" else 503)


def _database_state() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseFailure as error:
        return type(error).__name__
    return "ok"


def _redis_state() -> str:
    try:
        redis_connection().ping()
    except redis.RedisError as error:
        return type(error).__name__
    return "ok"


def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with the metrics, to whoever has one of the metrics tokens."""
    given = request.headers.get("Authorization", "").encode("utf-8", "surrogatepass")
    matches = [
        hmac.compare_digest(given, f"Bearer {token}".encode()) for token in settings.METRICS_TOKENS
    ]
    if not any(matches):
        return HttpResponse(
            "The metrics token is needed.\n",
            status=401,
            content_type="text/plain",
            headers={"WWW-Authenticate": 'Bearer realm="metrics"'},
        )
    return HttpResponse(exposition(), content_type=CONTENT_TYPE_LATEST)


def exposition() -> bytes:
    """Return the metrics of this process, or of all that share `PROMETHEUS_MULTIPROC_DIR`."""
    registry = REGISTRY
    if settings.PROMETHEUS_MULTIPROC_DIR:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    return generate_latest(registry)


PROBES: dict[str, View] = {"/_health": health, "/_ready": ready, "/metrics": metrics}

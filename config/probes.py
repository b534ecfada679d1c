"""`/_health`, `/_ready` and `/metrics`, answered before everything else.

They are a middleware because probes call by address: they have no session and no known host name.
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

from config.store_metrics import StoreMetrics
from projects.redis_connection import redis_connection

View = Callable[[HttpRequest], HttpResponse]


class ProbesMiddleware:
    """Answers the probes and passes every other request on."""

    def __init__(self, get_response: View) -> None:
        """Store the handler of the other requests."""
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a probe, or pass the request on."""
        probe = PROBES.get(request.path)
        if probe is None:
            return self._get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        return probe(request)


def health(_request: HttpRequest) -> HttpResponse:
    """Return 200 as long as the process can answer."""
    return JsonResponse({"status": "ok"})


def ready(_request: HttpRequest) -> HttpResponse:
    """Return 200 if the database answers, otherwise 503.

    Redis is only reported. Without it every gate asks the database, which is slower. If a load
    balancer took all processes out of service for that, there would be no answer at all.
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
    """Return the metrics if the request has a metrics token, otherwise 401."""
    given = request.headers.get("Authorization", "").encode("utf-8", "surrogatepass")
    matches = [
        hmac.compare_digest(given, f"Bearer {token}".encode()) for token in settings.METRICS_TOKENS
    ]
    if not any(matches):
        return HttpResponse(
            "A metrics token is required.\n",
            status=401,
            content_type="text/plain",
            headers={"WWW-Authenticate": 'Bearer realm="metrics"'},
        )
    return HttpResponse(exposition(), content_type=CONTENT_TYPE_LATEST)


def exposition() -> bytes:
    """Return the metrics of the stores, and of all processes in `PROMETHEUS_MULTIPROC_DIR`.

    Without that folder, the metrics of this process follow those of the stores.
    """
    of_stores = CollectorRegistry()
    of_stores.register(StoreMetrics())
    of_processes = REGISTRY
    if settings.PROMETHEUS_MULTIPROC_DIR:
        of_processes = CollectorRegistry()
        MultiProcessCollector(of_processes)
    return generate_latest(of_stores) + generate_latest(of_processes)


PROBES: dict[str, View] = {"/_health": health, "/_ready": ready, "/metrics": metrics}

"""Metrics of the web process's requests: how many, with which status, and how long they took."""

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from prometheus_client import Counter, Histogram

REQUESTS = Counter("tollgate_web_requests", "Requests answered.", ["route", "method", "status"])
SECONDS = Histogram(
    "tollgate_web_request_seconds",
    "From the request's arrival to its answer.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BEFORE_DJANGO = Counter(
    "tollgate_web_answered_before_django",
    "Requests that the web server answered itself: the body was too slow (408) or too large (413), "
    "there was no room for it (503), or Django failed without an answer (500).",
    ["status"],
)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMetricsMiddleware:
    """Counts requests by route. Paths would be endless, because callers make them up."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        """Store the handler of the requests."""
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass the request on and count its response."""
        began = time.perf_counter()
        response = self._get_response(request)
        route = request.resolver_match.route if request.resolver_match else "none"
        method = request.method if request.method in METHODS else "other"
        REQUESTS.labels(route, method, response.status_code).inc()
        SECONDS.labels(route).observe(time.perf_counter() - began)
        return response

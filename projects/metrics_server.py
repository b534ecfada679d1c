"""Metrics of processes that serve no other HTTP: workers and the reconciler."""

from django.conf import settings
from prometheus_client import start_http_server


def serve_metrics() -> None:
    """Serve this process's metrics on `METRICS_PORT`, if it is set. Any path answers.

    The port asks for no token, so nothing but Prometheus should be able to reach it. Raises
    `OSError` if the port is taken.
    """
    if settings.METRICS_PORT:
        start_http_server(settings.METRICS_PORT)

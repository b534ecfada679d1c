"""Metrics counted by prometheus_client directly, instead of being buffered."""

from prometheus_client import Counter, Histogram


def replace() -> None:
    """Let the metrics of every call be plain ones. Must be called before they are defined."""
    from gateway.telemetry import buffered_metrics

    buffered_metrics.BufferedCounter = Counter  # type: ignore[misc, assignment]
    buffered_metrics.BufferedHistogram = Histogram  # type: ignore[misc, assignment]

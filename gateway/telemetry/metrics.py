"""The metrics for Prometheus. `PROMETHEUS_MULTIPROC_DIR` joins those of several processes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

REQUESTS = Counter("tollgate_gateway_requests", "Calls by outcome", ["product", "api", "status"])
REFUSALS = Counter(
    "tollgate_gateway_refusals", "Calls that the gateway refused", ["product", "reason"]
)
OPEN_BECAUSE_UNKNOWN = Counter(
    "tollgate_gateway_open_because_unknown", "Calls admitted on an answer that may be outdated"
)
RESOLVER_FAILURES = Counter(
    "tollgate_gateway_resolver_failures",
    "Questions to Django without a usable answer (kind unusable: investigate at once)",
    ["question", "kind"],
)
HELD = Counter("tollgate_gateway_held_credits", "Credits reserved before calls", ["product"])
SETTLED = Counter("tollgate_gateway_settled_credits", "Credits booked after calls", ["product"])
OVERRUN = Counter(
    "tollgate_gateway_overrun_credits", "Credits booked beyond the bound of their hold; should be 0"
)
ESTIMATED = Counter("tollgate_gateway_estimated", "Calls booked from an estimate", ["why"])
OTHER_MODEL = Counter(
    "tollgate_gateway_other_model",
    "Answers from another model than the call asked for, by the price booked: investigate at once",
    ["price"],
)
UNPRICED = Counter(
    "tollgate_gateway_unpriced",
    "Parts of calls that a provider reported and that have no price here: investigate at once",
    ["part"],
)
UNCERTAIN = Counter(
    "tollgate_gateway_uncertain_credits",
    "Bounds of broken streams, less what was booked for their text, in credits: the most that "
    "hidden reasoning may have cost in addition",
)
REDIS_FAILURES = Counter(
    "tollgate_gateway_redis_failures", "Redis commands without an answer", ["operation"]
)
LOST_DATA = Counter(
    "tollgate_gateway_redis_lost_data", "Times Redis turned out to have lost data", ["how"]
)
EVENTS_WAITING = Gauge(
    "tollgate_gateway_events_waiting", "Events not yet delivered", multiprocess_mode="mostrecent"
)
EVENTS_AGE = Gauge(
    "tollgate_gateway_events_oldest_seconds",
    "Age of the oldest event not yet delivered",
    multiprocess_mode="mostrecent",
)
EVENTS_DELIVERED = Counter(
    "tollgate_gateway_events_delivered", "Events delivered, by billing's answer", ["status"]
)
POSTHOG_EVENTS = Counter(
    "tollgate_gateway_posthog_events",
    "Events sent to PostHog, by the result",
    ["status"],
)
POSTHOG_FAILURES = Counter(
    "tollgate_gateway_posthog_failures", "Failed attempts to send events to PostHog"
)
POSTHOG_WAITING = Gauge(
    "tollgate_gateway_posthog_waiting", "Events waiting for PostHog", multiprocess_mode="mostrecent"
)
POSTHOG_LEFT_OUT = Gauge(
    "tollgate_gateway_posthog_left_out",
    "Events not sent to PostHog, because too many were waiting",
    multiprocess_mode="mostrecent",
)
REPLAYED_ANSWERS = Counter(
    "tollgate_gateway_replayed_answers", "Calls answered with the kept answer to an earlier one"
)
REPEATED_GENERATIONS = Counter(
    "tollgate_gateway_repeated_generations",
    "Calls made again because the answer to an earlier one, which may have been paid, was lost",
)
EVENTS_DROPPED = Counter(
    "tollgate_gateway_events_let_go", "Events of unmetered calls lost because Redis stayed away"
)
UPSTREAM_SECONDS = Histogram(
    "tollgate_gateway_upstream_seconds",
    "Seconds until the provider's first byte",
    ["upstream"],
    buckets=_SECONDS,
)
ADDED_SECONDS = Histogram(
    "tollgate_gateway_added_seconds",
    "Seconds that the gateway added to a call, without waiting for the provider",
    buckets=_SECONDS,
)
IN_FLIGHT = Gauge("tollgate_gateway_in_flight", "Calls under way", multiprocess_mode="livesum")
BODY_BYTES = Gauge(
    "tollgate_gateway_body_bytes",
    "Bytes of request bodies kept until providers begin to answer",
    multiprocess_mode="livesum",
)


_levels: dict[Gauge, Callable[[], float]] = {}
_children: dict[tuple[object, ...], Any] = {}


def child(metric: Any, *labels: object) -> Any:
    """Return a metric's child for these labels, cached: `labels()` takes a lock each time."""
    key = (metric, *labels)
    found = _children.get(key)
    if found is None:
        found = _children[key] = metric.labels(*labels)
    return found


def upstream_seconds(upstream: str, seconds: float) -> None:
    """Observe how long a provider took until its first byte."""
    child(UPSTREAM_SECONDS, upstream).observe(seconds)


def set_regularly(gauge: Gauge, level: Callable[[], float]) -> None:
    """Set a gauge to `level()` at every refresh, instead of with every change."""
    _levels[gauge] = level


def refresh() -> None:
    """Set the gauges of `set_regularly`."""
    for gauge, level in _levels.items():
        gauge.set(level())


def forget_dead_processes() -> None:
    """Remove the live gauges, such as calls under way, of processes that were killed."""
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)


def exposition() -> tuple[bytes, bytes]:
    """Return the metrics of all processes and their content type."""
    refresh()
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    return generate_latest(registry), CONTENT_TYPE_LATEST.encode()

"""The modules of the money path, in rooms, and the fast tests that must notice mutations."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Room:
    """Modules (as patterns of paths), and the test files that must notice their mutations.

    Tests with a gateway process don't count: nobody sees which lines that process runs.
    """

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]

    def files(self, root: Path) -> list[str]:
        """Return the paths of the modules."""
        return sorted(
            str(path.relative_to(root))
            for pattern in self.modules
            for path in root.glob(pattern)
            if path.name != "__init__.py"
        )


ROOMS = (
    Room(
        "decisions",
        (
            "billing/decisions/*.py",
            "billing/allowances/*.py",
            "billing/credits.py",
            "billing/periods.py",
            "billing/sweep.py",
        ),
        (
            "tests/billing/decisions/test_decision.py",
            "tests/billing/decisions/test_burndown.py",
            "tests/billing/decisions/test_running_totals.py",
            "tests/billing/decisions/test_preview.py",
            "tests/billing/allowances/test_limits_and_grants.py",
            "tests/billing/allowances/test_caps.py",
            "tests/billing/allowances/test_usual.py",
            "tests/billing/test_credits.py",
            "tests/billing/test_periods.py",
            "tests/billing/test_sweep.py",
            "tests/billing/ingestion/test_booking.py",
            "tests/billing/verification/test_drift.py",
        ),
    ),
    Room(
        "ledger",
        ("billing/ingestion/*.py", "billing/append_only.py"),
        (
            "tests/billing/ingestion/test_event_fields.py",
            "tests/billing/ingestion/test_unstored_events.py",
            "tests/billing/ingestion/test_booking.py",
            "tests/billing/ingestion/test_corrections.py",
            "tests/billing/ingestion/test_quarantine.py",
            "tests/billing/ingestion/test_usage_events_endpoint.py",
            "tests/billing/ingestion/test_insufficient_remaining.py",
            "tests/billing/ingestion/test_run_refunds.py",
            "tests/billing/allowances/test_caps.py",
            "tests/billing/test_append_only.py",
        ),
    ),
    Room(
        "published state",
        ("quota/published/*.py", "quota/gate.py", "quota/state.py"),
        (
            "tests/quota/test_gate.py",
            "tests/quota/published/test_publication.py",
            "tests/quota/published/test_reconciler.py",
            "tests/quota/published/test_credit_gains.py",
            "tests/quota/published/test_quota_changes.py",
            "tests/quota/published/test_redis_health.py",
            "tests/quota/quota_limits/test_answers.py",
            "tests/billing/allowances/test_caps.py",
            "tests/billing/verification/test_tampering.py",
            "tests/quota/quota_limits/test_sorted_set.py",
            "tests/quota/quota_limits/test_failures.py",
            "tests/billing/decisions/test_in_redis.py",
        ),
    ),
    Room(
        "published scripts",
        ("quota/published/lua/*.lua",),
        ("tests/quota/published/test_scripts.py",),
    ),
    Room(
        "gateway money",
        (
            "gateway/money/holds.py",
            "gateway/money/prices.py",
            "gateway/money/price_list.py",
            "gateway/money/reaper.py",
        ),
        (
            "tests/gateway/money/test_holds.py",
            "tests/gateway/money/test_holds_properties.py",
            "tests/gateway/money/test_prices.py",
            "tests/gateway/money/test_components.py",
            "tests/gateway/money/test_model_names.py",
            "tests/gateway/test_odd_endings.py",
        ),
    ),
    Room(
        "gateway scripts",
        ("gateway/lua/*.lua",),
        ("tests/gateway/money/test_scripts.py",),
    ),
    Room(
        "gateway bookings",
        ("gateway/booking.py", "gateway/money/charges.py", "gateway/money/usage_events.py"),
        (
            "tests/gateway/test_settler.py",
            "tests/gateway/test_odd_endings.py",
            "tests/gateway/money/test_prices.py",
            "tests/gateway/money/test_components.py",
            "tests/gateway/money/test_charges.py",
            "tests/gateway/money/test_usage_events.py",
        ),
    ),
    Room(
        "gateway delivery",
        (
            "gateway/money/outbox.py",
            "gateway/money/posthog.py",
        ),
        ("tests/gateway/money/test_deliveries.py",),
    ),
    Room(
        "metering",
        ("gateway/metering/*.py",),
        (
            "tests/gateway/metering/test_metering.py",
            "tests/gateway/metering/test_readers.py",
            "tests/gateway/metering/test_excerpt.py",
            "tests/gateway/metering/test_media.py",
            "tests/gateway/metering/test_estimates.py",
            "tests/gateway/metering/test_event_streams.py",
            "tests/gateway/metering/test_stream_cuts.py",
            "tests/gateway/metering/test_metering_properties.py",
            "tests/gateway/test_odd_endings.py",
        ),
    ),
)

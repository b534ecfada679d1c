"""The money path: its modules, room by room, and the fast tests that own them."""

from dataclasses import dataclass
from pathlib import Path

_BILLING = "tests/billing/test_"
_QUOTA = "tests/quota/test_"
_GATEWAY = "tests/gateway/test_"


@dataclass(frozen=True)
class Room:
    """Modules (as patterns of paths), and the test files that must notice their mutations."""

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
        ("billing/decisions/*.py", "billing/allowances/*.py", "billing/credits.py"),
        tuple(
            f"{_BILLING}{name}.py"
            for name in (
                "decision", "burndown", "credits", "periods", "limits_and_grants", "caps", "sweep",
                "booking", "corrections",
            )
        ),
    ),
    Room(
        "ledger",
        ("billing/ingestion/*.py", "billing/append_only.py"),
        tuple(
            f"{_BILLING}{name}.py"
            for name in (
                "booking", "corrections", "quarantine", "usage_events_endpoint", "append_only",
                "insufficient_remaining", "caps", "daily_usage",
            )
        ),
    ),
    Room(
        "published",
        ("quota/published/*.py", "quota/gate.py", "quota/state.py", "quota/published/lua/*.lua"),
        tuple(
            f"{_QUOTA}{name}.py"
            for name in (
                "gate", "publication", "publication_properties", "reconciler", "quota_changes",
                "quota_limits", "credit_gains",
            )
        ),
    ),
    Room(
        "gateway money",
        (
            "gateway/money/booking.py", "gateway/money/charges.py", "gateway/money/holds.py",
            "gateway/money/prices.py", "gateway/money/price_list.py", "gateway/money/reaper.py",
            "gateway/money/usage_events.py",
        ),
        tuple(
            f"{_GATEWAY}{name}.py"
            for name in (
                "holds", "holds_properties", "prices", "odd_endings", "metering_properties",
                "bounds", "bounds_properties", "components", "model_names", "broken_answers",
            )
        ),
    ),
    Room(
        "gateway delivery",
        ("gateway/money/outbox.py", "gateway/money/posthog.py"),
        tuple(f"{_GATEWAY}{name}.py" for name in ("outbox", "posthog", "holds_properties")),
    ),
    Room(
        "metering",
        ("gateway/metering/*.py",),
        tuple(
            f"{_GATEWAY}{name}.py"
            for name in (
                "metering", "metering_properties", "estimates", "event_streams", "odd_endings",
                "stream_cuts",
            )
        ),
    ),
    Room(
        "gateway scripts",
        ("gateway/lua/*.lua",),
        tuple(
            f"{_GATEWAY}{name}.py"
            for name in ("holds", "holds_properties", "kept_answers", "throttles", "caps")
        ),
    ),
)  # fmt: skip

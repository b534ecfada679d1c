"""`make soak`: repeat the random tests and the kill tests for some minutes.

    python -m tests.soak [MINUTES]

Each round runs the whole system under load and with faults, the property tests with many times the
examples and a new seed, the tests that kill or cut off something in a new order, and the long
versions of the benchmarks that count to the micro-credit. The last step is finished even if the
time is over. Every failure is printed with the command that repeats it.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 30.0
EXAMPLES_TIMES = 20
LONGEST_TEST = 1_800  # seconds
PROPERTIES = (
    "tests/workflows/slack/test_mrkdwn.py",
    "tests/gateway/body/test_bounds_properties.py",
    "tests/gateway/money/test_holds_properties.py",
    "tests/gateway/metering/test_metering.py",
    "tests/gateway/metering/test_metering_properties.py",
    "tests/gateway/test_odd_providers.py",
    "tests/gateway/money/test_prices.py",
    "tests/gateway/body/test_requests.py",
    "tests/billing/test_billing_properties.py",
    "tests/billing/decisions/test_burndown.py",
    "tests/billing/reports/test_apportionment.py",
    "tests/billing/test_credits.py",
    "tests/billing/decisions/test_decision.py",
    "tests/billing/test_periods.py",
    "tests/quota/published/test_publication_properties.py",
    "tests/coding_tasks/agents/test_events.py",
    "tests/coding_tasks/agents/test_parsers.py",
    "tests/coding_tasks/sandbox/test_lines.py",
    "tests/coding_tasks/turns/test_images.py",
    "tests/slack_bot/test_events.py",
    "tests/slack_bot/test_fuzz.py",
    "tests/workflows/slack/test_splitting.py",
    "tests/test_api_schema.py",
)
FAILURES = (
    "tests/gateway/test_authentication_matrix.py",
    "tests/gateway/test_crashes.py",
    "tests/gateway/network/test_disconnects.py",
    "tests/gateway/test_exactness.py",
    "tests/gateway/test_failure_policy.py",
    "tests/gateway/money/test_outbox.py",
    "tests/gateway/metering/test_stream_cuts.py",
    "tests/coding_tasks/repositories/test_shared_checkouts.py",
    "tests/workflows",
    "tests/devstack/test_whole_stack.py",
)


@dataclass(frozen=True)
class Step:
    """One step of a round; `command` returns the command for a seed."""

    name: str
    command: Callable[[int], list[str]]


def _pytest(paths: tuple[str, ...]) -> Callable[[int], list[str]]:
    def command(seed: int) -> list[str]:
        return [
            sys.executable, "-m", "pytest", "--quiet", "--numprocesses", "0",
            f"--timeout={LONGEST_TEST}", f"--hypothesis-seed={seed}",
            f"--randomly-seed={seed}", *paths,
        ]  # fmt: skip

    return command


def _system(seed: int) -> list[str]:
    return [sys.executable, "-m", "tests.soak.system", "--seed", str(seed)]


def _benchmark(*arguments: str) -> Callable[[int], list[str]]:
    return lambda _: [sys.executable, "-m", *arguments]


STEPS = (
    Step("whole system", _system),
    Step("properties", _pytest(PROPERTIES)),
    Step("kills and cuts", _pytest(FAILURES)),
    Step("exactness", _benchmark("benchmarks.gateway", "exactness")),
    Step("streams", _benchmark("benchmarks.gateway", "streams")),
    Step("propagation", _benchmark("benchmarks.propagation", "12")),
)


def main(minutes: float) -> int:
    """Run rounds until the minutes are over; return 1 if anything failed."""
    end = time.monotonic() + 60 * minutes
    environment = os.environ | {"TEST_EXAMPLES_TIMES": str(EXAMPLES_TIMES)}
    failed: list[str] = []
    done = 0
    while time.monotonic() < end:
        step = STEPS[done % len(STEPS)]
        seed = random.SystemRandom().randrange(2**32)
        command = step.command(seed)
        began = time.monotonic()
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        done += 1
        seconds = time.monotonic() - began
        outcome = "FAILED" if ran.returncode else "ok"
        _say(f"{step.name:<16}{outcome:<8}{seconds:6.0f} s   seed {seed}")
        if ran.returncode:
            failed.append(f"TEST_EXAMPLES_TIMES={EXAMPLES_TIMES} {' '.join(command)}")
            _say(ran.stdout + ran.stderr)
    _say("\n".join([f"{done} steps, {len(failed)} failed", *failed]))
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES))

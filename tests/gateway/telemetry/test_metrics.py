"""The metrics of all processes together: who may read them, and what they never name."""

import os
import subprocess
import sys
from pathlib import Path

from tests.gateway.conftest import METRICS_TOKEN, World, messages_body

ROOT = Path(__file__).resolve().parents[3]
KILLED = """
import os, signal
from gateway.telemetry import metrics
metrics.set_regularly(metrics.IN_FLIGHT, lambda: 1)
metrics.REQUESTS.labels("p", "a", 200).inc()
metrics.UPSTREAM_SECONDS.labels("u").observe(0.002)
metrics.refresh()
metrics.OPEN_BECAUSE_UNKNOWN.inc()
os.kill(os.getpid(), signal.SIGKILL)
"""
ITS_SUCCESSOR = """
from gateway.telemetry import metrics
metrics.set_regularly(metrics.IN_FLIGHT, lambda: 1)
metrics.REQUESTS.labels("p", "a", 200).inc()
metrics.UPSTREAM_SECONDS.labels("u").observe(0.002)
metrics.refresh()
metrics.OPEN_BECAUSE_UNKNOWN.inc()
metrics.forget_dead_processes()
print(metrics.exposition()[0].decode())
"""


def run(script: str, directory: Path) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout


def test_calls_of_a_killed_process_do_not_stay_under_way(
    tmp_path: Path,
) -> None:
    run(KILLED, tmp_path)
    lines = run(ITS_SUCCESSOR, tmp_path).splitlines()
    assert "tollgate_gateway_in_flight 1.0" in lines
    assert "tollgate_gateway_open_because_unknown_total 2.0" in lines
    assert 'tollgate_gateway_requests_total{api="a",product="p",status="200"} 2.0' in lines
    assert 'tollgate_gateway_upstream_seconds_bucket{le="0.001",upstream="u"} 0.0' in lines
    assert 'tollgate_gateway_upstream_seconds_bucket{le="0.0025",upstream="u"} 2.0' in lines
    assert 'tollgate_gateway_upstream_seconds_sum{upstream="u"} 0.004' in lines


def test_metrics_need_their_token_and_name_no_caller(world: World) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(project)
    overrun = world.metric("tollgate_gateway_overrun_credits_total")  # of tests before this one
    world.post(token)
    assert world.get("/metrics").status_code == 401
    assert world.metric("tollgate_gateway_requests_total") > 0
    assert world.metric("tollgate_gateway_overrun_credits_total") == overrun
    world.post(token, f"/{token}/v1/messages")
    world.post(token, f"/slack_app/{token}")
    world.post(token, body=messages_body(model=token))
    shown = world.get("/metrics", METRICS_TOKEN).text
    for secret in (token, project.organization_id, METRICS_TOKEN, "claude-sonnet-4-5"):
        assert secret not in shown

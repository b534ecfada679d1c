"""The worker's command: it waits for Temporal, works, and stops when it is told to."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devstack.servers import free_port, temporal_server
from tests.conftest import running, wait_until
from tests.workflows.fake_gateway import AGENT
from tests.workflows.world import World
from workflows import client
from workflows.models import Mention


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


@contextmanager
def run_worker(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "run_worker"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(worker: subprocess.Popen, log: Path, text: str) -> None:
    wait_until(
        lambda: worker.poll() is not None or text in log.read_text(), 60, f"{text!r} in the log"
    )
    assert worker.poll() is None, log.read_text()


@pytest.mark.slow
def test_a_worker_waits_for_temporal_works_and_stops_in_time_whatever_an_agent_does(
    shop: World, environment, log, tmp_path, settings, monkeypatch
):
    port = free_port()
    settings.TEMPORAL_ADDRESS = environment["TEMPORAL_ADDRESS"] = f"127.0.0.1:{port}"
    settings.TEMPORAL_TASK_QUEUE = "tollgate"
    monkeypatch.setattr(client, "_connection", None)
    with run_worker(environment, log) as worker:
        wait_for(worker, log, "waiting for Temporal")
        with running(temporal_server(None, port, None), tmp_path / "temporal.log"):
            wait_for(worker, log, "worker ready")
            assert shop.handle().state == Mention.State.ANSWERED
            shop.gateway.hang_next(30)
            shop.start()
            wait_until(lambda: len(shop.gateway.requests(AGENT)) == 2, 30, "the agent hanging")
            started = time.monotonic()
            worker.terminate()
            assert worker.wait(15) == 0
            assert time.monotonic() - started < 12
    assert "left to another worker" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_a_worker_stops_on_ctrl_c_even_before_temporal_was_ever_up(environment, log):
    environment["TEMPORAL_ADDRESS"] = f"127.0.0.1:{free_port()}"
    with run_worker(environment, log) as worker:
        wait_for(worker, log, "waiting for Temporal")
        worker.send_signal(signal.SIGINT)
        assert worker.wait(10) == 0

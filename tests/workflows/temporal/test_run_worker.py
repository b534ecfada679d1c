"""The worker's command waits for Temporal, works, and stops on a signal."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event

import pytest

from coding_tasks.reading.checkouts import PREFIX, Cloner
from devstack.servers import free_port, temporal_server
from tests.conftest import running, wait_until
from tests.deep_folders import nest
from tests.stopwatch import Stopwatch
from tests.workflows.fake_gateway import AGENT
from tests.workflows.world import World
from workflows.models import Mention
from workflows.temporal import client, worker


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


def wait_for(process: subprocess.Popen, log: Path, text: str) -> None:
    wait_until(
        lambda: process.poll() is not None or text in log.read_text(), what=f"{text!r} in the log"
    )
    assert process.poll() is None, log.read_text()


@pytest.mark.slow
def test_a_worker_removes_leftovers_waits_for_temporal_works_and_stops_in_time(
    shop: World, environment, log, tmp_path, settings, monkeypatch
):
    port = free_port()
    settings.TEMPORAL_ADDRESS = environment["TEMPORAL_ADDRESS"] = f"127.0.0.1:{port}"
    settings.TEMPORAL_TASK_QUEUE = "tollgate"
    monkeypatch.setattr(client, "_connection", None)
    environment["TMPDIR"] = str(tmp_path)
    leftover = tmp_path / f"{PREFIX}killed"
    nest(leftover, 1_500, "d")
    os.utime(leftover, (0, 0))
    with run_worker(environment, log) as process:
        wait_for(process, log, "waiting for Temporal")
        wait_until(lambda: not leftover.exists(), what="the leftover being removed")
        with running(temporal_server(None, port, None), tmp_path / "temporal.log"):
            wait_for(process, log, "worker ready")
            assert shop.handle().state == Mention.State.ANSWERED
            shop.gateway.hang_next(30)
            shop.start()
            wait_until(lambda: len(shop.gateway.requests(AGENT)) == 2, what="the agent hanging")
            with Stopwatch() as waited:
                process.terminate()
                assert process.wait(60) == 0
            assert waited.seconds < 10
    assert "left to another worker" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_removal_of_leftovers_that_fails_is_tried_again(monkeypatch, caplog):
    tried = Event()
    outcomes = [RecursionError("too deep"), FileNotFoundError("no temporary folder")]

    def remove(*_arguments: object, **_options: object) -> None:
        if outcomes:
            raise outcomes.pop()
        tried.set()

    monkeypatch.setattr(Cloner, "remove_leftovers", remove)
    monkeypatch.setattr(worker, "TIDY_EVERY", timedelta(milliseconds=1))
    worker.keep_tidy(worker.configured_tools())
    assert tried.wait(10)
    monkeypatch.setattr(worker, "TIDY_EVERY", timedelta(days=1))
    assert "leftovers on the disk cannot be removed" in caplog.text


def test_a_worker_that_is_stopped_before_temporal_was_ever_up_stops(settings):
    settings.TEMPORAL_ADDRESS = f"127.0.0.1:{free_port()}"

    async def main() -> bool:
        stop = asyncio.Event()
        working = asyncio.create_task(worker.run(stop, worker.configured_tools()))
        await asyncio.sleep(0)
        assert not working.done()
        stop.set()
        return await asyncio.wait_for(working, 10)

    assert asyncio.run(main())

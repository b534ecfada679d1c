"""What agent workers report that they can run."""

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from coding_tasks.agent_worker import readiness
from coding_tasks.agent_worker.exchange import MOST_REPORT, Exchange
from coding_tasks.agents.registry import registry
from coding_tasks.sandbox.bubblewrap.sandbox import Bubblewrap
from tests.conftest import wait_until


class NoSandbox(Bubblewrap):
    def why_missing(self) -> str | None:
        return "user namespaces are forbidden"


@pytest.fixture
def exchange(tmp_path) -> Exchange:
    return Exchange(tmp_path / "exchange")


async def test_a_worker_reports_while_it_runs(exchange: Exchange, tmp_path: Path):
    report = readiness.report(exchange, NoSandbox(), registry(), tmp_path)
    reporting = asyncio.create_task(report)
    await asyncio.to_thread(wait_until, lambda: readiness.workers(exchange), what="the report")
    [said] = readiness.workers(exchange)
    assert said.sandbox == "user namespaces are forbidden"
    assert said.agents["small"] == ""
    assert set(said.missing) == {"claude", "codex", "mini"}
    reporting.cancel()
    await asyncio.wait([reporting])
    assert readiness.workers(exchange) == []


async def test_a_worker_that_cannot_write_goes_on(tmp_path: Path):
    (tmp_path / "exchange").write_text("a file where the folder should be")
    report = readiness.report(Exchange(tmp_path / "exchange"), NoSandbox(), {}, tmp_path)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(report, 0.2)


def test_a_worker_that_died_is_no_longer_listed(exchange: Exchange):
    exchange.put_report("dead", {"sandbox": "", "agents": {}})
    assert [worker.worker for worker in readiness.workers(exchange)] == ["dead"]
    then = time.time() - 4 * readiness.EVERY
    os.utime(exchange.root / "workers" / "dead.json", (then, then))
    assert readiness.workers(exchange) == []


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"agents": []}', "[" * 50_000, "\0", '"' + "x" * MOST_REPORT + '"'],
    ids=["empty", "list", "agents as a list", "deep", "zero", "long"],
)
def test_a_malformed_report_is_skipped(exchange: Exchange, content):
    exchange.put_report("good", {"sandbox": "", "agents": {}})
    (exchange.root / "workers" / "bad.json").write_text(content)
    assert [worker.worker for worker in readiness.workers(exchange)] == ["good"]


def test_a_report_that_is_not_a_file_is_skipped(exchange: Exchange, tmp_path: Path):
    exchange.put_report("good", {"sandbox": "", "agents": {}})
    (tmp_path / "elsewhere").write_text(json.dumps({"sandbox": "", "agents": {}}))
    (exchange.root / "workers" / "link.json").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(exchange.root / "workers" / "pipe.json")
    assert [worker.worker for worker in readiness.workers(exchange)] == ["good"]


def test_a_long_report_is_shortened(exchange: Exchange):
    agents = {f"agent {number}": "x" * 1_000 for number in range(60)}
    exchange.put_report("long", {"sandbox": "y" * 1_000, "agents": agents})
    [said] = readiness.workers(exchange)
    assert len(said.sandbox) == len(said.agents["agent 1"]) == 300
    assert len(said.agents) == 50

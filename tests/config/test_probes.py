"""The endpoints for load balancers and Prometheus."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import OperationalError, connection

ROOT = Path(__file__).resolve().parent.parent.parent
TOKEN = {"authorization": "Bearer metrics-token-of-the-test-suite"}


@pytest.fixture
def dead_database(monkeypatch):
    def refuse():
        raise OperationalError("no database")

    monkeypatch.setattr(connection, "cursor", refuse)


def test_a_process_that_answers_is_healthy_whatever_else_is_down(client, dead_redis, dead_database):
    assert client.get("/_health").json() == {"status": "ok"}


@pytest.mark.django_db
def test_with_all_stores_it_is_ready(client, redis_client):
    assert client.get("/_ready").json() == {"status": "ok", "database": "ok", "redis": "ok"}


@pytest.mark.django_db
def test_without_redis_it_is_ready_and_says_so(client, dead_redis):
    answer = client.get("/_ready")
    assert answer.status_code == 200
    assert answer.json()["redis"] == "ConnectionError"


def test_without_the_database_it_is_not_ready(client, redis_client, dead_database):
    answer = client.get("/_ready")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "unavailable",
        "database": "OperationalError",
        "redis": "ok",
    }


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/_health", "/metrics"])
def test_a_probe_can_call_by_address(client, path):
    answer = client.get(path, headers=TOKEN, SERVER_NAME="10.1.2.3")
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/_health", "/_ready", "/metrics"])
def test_a_probe_changes_nothing(client, path):
    assert client.post(path, headers=TOKEN).status_code == 405


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "metrics-token-of-the-test-suite",
        "Basic metrics-token-of-the-test-suite",
        "Bearer \u00e9",
        "Bearer " + "x" * 5000,
    ],
)
def test_metrics_need_the_metrics_token(client, header):
    extra = {} if header is None else {"HTTP_AUTHORIZATION": header}
    answer = client.get("/metrics", **extra)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert b"tollgate_" not in answer.content


def test_without_configured_metrics_tokens_none_is_accepted(client, settings):
    settings.METRICS_TOKENS = []
    assert client.get("/metrics", HTTP_AUTHORIZATION="Bearer ").status_code == 401


@pytest.mark.django_db
def test_requests_are_counted_by_route_and_status(client):
    line = 'tollgate_web_requests_total{method="GET",route="none",status="404"}'

    def count():
        found = [
            float(row.rpartition(" ")[2])
            for row in client.get("/metrics", headers=TOKEN).content.decode().splitlines()
            if row.startswith(line)
        ]
        return sum(found)

    before = count()
    client.get("/nowhere/7/")
    client.get("/nowhere/8/")
    assert count() == before + 2


def test_several_processes_are_counted_together(tmp_path):
    """As with several WEB_PROCESSES: each process writes a file, and any process reads all."""
    script = """
import django, os, sys
django.setup()
from config.request_metrics import REQUESTS
from config.probes import exposition
child = os.fork()  # importing everything once is enough
if child:
    os.waitpid(child, 0)
REQUESTS.labels("there", "GET", 200).inc()
sys.stdout.write(exposition().decode())
"""
    environment = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": "x",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
    }
    printed = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    counted = 'tollgate_web_requests_total{method="GET",route="there",status="200"} '
    values = [line.removeprefix(counted) for line in printed.splitlines() if counted in line]
    assert values == ["1.0", "2.0"]

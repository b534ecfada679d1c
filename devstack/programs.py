"""The programs of one stack. They start in two stages: servers first, then Tollgate."""

from collections.abc import Sequence
from pathlib import Path

from devstack import commands
from devstack.environment import (
    AGENT_WORKER,
    CELERY,
    DEMO,
    DEMO_SLACK,
    DJANGO,
    GATEWAY,
    SOCKETS,
    TEMPORAL_CLIENT,
    WEB,
)
from devstack.servers import Program, answers, redis_server, temporal_server
from devstack.settings import Stack
from devstack.temporal_file import NAME as TEMPORAL_FILE

# On a machine of one's own it does not matter that root runs Celery.
QUIET = {"PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges"}


def server_programs(stack: Stack) -> Sequence[Program]:
    """Return the embedded servers that the stack starts."""
    programs = []
    if stack.starts_redis:
        data = stack.directory / "redis"
        programs.append(redis_server("redis", data, stack.ports["REDIS_PORT"]))
    if stack.starts_gateway_redis:
        data = stack.directory / "gateway-redis"
        programs.append(redis_server("gateway-redis", data, stack.ports["GATEWAY_REDIS_PORT"]))
    if stack.starts_temporal:
        database = stack.directory / TEMPORAL_FILE
        ports = stack.ports["TEMPORAL_PORT"], stack.ports["TEMPORAL_UI_PORT"]
        programs.append(temporal_server(database, *ports))
    if stack.starts_demo_slack:
        health = f"http://127.0.0.1:{stack.ports['DEMO_SLACK_PORT']}/_health"
        programs.append(_program("demo-slack", commands.DEMO_SLACK, health, DEMO_SLACK))
    if stack.starts_demo_model:
        health = f"http://127.0.0.1:{stack.ports['DEMO_MODEL_PORT']}/_health"
        programs.append(_program("demo-model", commands.DEMO_MODEL, health, DEMO))
    return programs


def tollgate_programs(stack: Stack) -> Sequence[Program]:
    """Return Tollgate's own processes."""
    web = f"http://127.0.0.1:{stack.ports['WEB_PORT']}/_ready"
    gateway = f"http://127.0.0.1:{stack.ports['GATEWAY_PORT']}/_health"
    several = int(stack["GRANIAN_WORKERS"]) > 1
    joined = {"PROMETHEUS_MULTIPROC_DIR": str(metrics_directory(stack))} if several else {}
    sockets = [Program("sockets", commands.SOCKETS, reads=SOCKETS)] * stack.uses_socket_mode
    return [
        _program("web", commands.WEB, web, WEB, joined),
        *sockets,
        Program("worker", commands.WORKER, reads=DJANGO | TEMPORAL_CLIENT),
        Program("agents", commands.AGENT_WORKER, reads=AGENT_WORKER),
        Program("celery", commands.CELERY, environment=QUIET, reads=CELERY),
        Program("beat", commands.BEAT, reads=DJANGO),
        Program("reconciler", commands.RECONCILER, reads=DJANGO),
        _program("gateway", commands.GATEWAY, gateway, GATEWAY),
    ]


def metrics_directory(stack: Stack) -> Path:
    """Return where several web processes merge their metrics. Empty it before they start."""
    return stack.directory / "metrics"


def _program(
    name: str,
    argv: list[str],
    health: str,
    reads: frozenset[str],
    environment: dict[str, str] | None = None,
) -> Program:
    return Program(name, argv, lambda: answers(health), environment or {}, reads)

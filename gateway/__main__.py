"""Run the gateway: `python -m gateway`."""

import ctypes
import os
import resource
import signal
import sys
import tempfile
from importlib.util import find_spec

import uvicorn
from environs import EnvValidationError

from gateway.settings import Settings, from_environment

_PR_SET_PDEATHSIG = 1
_OPEN_FILES = 16_384


def main() -> int:
    """Serve until stopped; return the exit code. Several processes share the port."""
    try:
        settings = from_environment()
    except EnvValidationError as error:
        sys.stderr.write(f"The gateway cannot start: {error}\n")
        return 2
    if settings.traces and find_spec("opentelemetry") is None:
        sys.stderr.write(
            "The gateway cannot start: OTEL_EXPORTER_OTLP_ENDPOINT is set, but the packages of the "
            "dependency group `tracing` are not installed.\n"
        )
        return 2
    if settings.sentry_dsn and find_spec("sentry_sdk") is None:
        sys.stderr.write(
            "The gateway cannot start: SENTRY_DSN is set, but the package of the dependency group "
            "`sentry` is not installed.\n"
        )
        return 2
    _allow_open_files()
    # Join metrics only among the gateway's own processes, never with another program's.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    if settings.processes > 1:
        with tempfile.TemporaryDirectory(prefix="tollgate-gateway-") as directory:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
            _serve(settings)
    else:
        _serve(settings)
    return 0


def _allow_open_files() -> None:
    """Raise the limit of open files, often 1,024, so that idle connections cannot use it up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _serve(settings: Settings) -> None:
    from gateway.network.server import Connection

    uvicorn.run(
        "gateway.app:create" if settings.processes == 1 else "gateway.__main__:create_in_worker",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.processes,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        interface="asgi3",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=4096,
        timeout_graceful_shutdown=int(settings.shutdown_timeout),
        timeout_worker_healthcheck=10,
    )


def create_in_worker() -> object:
    """Return the application in a worker process, which dies with the process that started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    from gateway.app import create
    from gateway.telemetry.metrics import forget_dead_processes

    forget_dead_processes()

    return create()


if __name__ == "__main__":
    sys.exit(main())

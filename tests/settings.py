"""Settings of the test suite: its own environment, then the product's settings unchanged.

Fixtures (`tests/conftest.py`) start the servers that a test needs, at the addresses chosen here.
`DB=postgres` in the environment runs the suite on PostgreSQL instead of SQLite.
"""

import os
import tempfile
from pathlib import Path

from devstack.servers import free_port

_removed_at_exit = tempfile.TemporaryDirectory(prefix="tollgate-tests-", ignore_cleanup_errors=True)
DIRECTORY = Path(_removed_at_exit.name)
DIRECTORY.chmod(0o755)  # PostgreSQL's user must be able to enter it
SHARED = Path(os.environ.setdefault("TEST_RUN_DIRECTORY", str(DIRECTORY)))
"""What all processes of a run share: the folder of the process that started the others."""
ON_POSTGRES = os.environ.get("DB") == "postgres"
REDIS_PORT = free_port()
TEMPORAL_PORT = free_port()
POSTGRES_PORT = free_port()

_INHERITED = ("SLACK_", "ANTHROPIC_", "OPENAI_", "GATEWAY_", "TEMPORAL_", "SENTRY_")
for inherited in list(os.environ):
    if inherited.startswith(_INHERITED):
        del os.environ[inherited]

os.environ |= {
    "SECRET_KEY": "a secret of the test suite, longer than fifty characters, and of no value",
    "DEBUG": "false",
    "DATABASE_URL": (
        f"postgres://postgres@127.0.0.1:{POSTGRES_PORT}/postgres"
        if ON_POSTGRES
        else f"sqlite:///{DIRECTORY / 'unused.sqlite3'}"
    ),
    "REDIS_URL": f"redis://127.0.0.1:{REDIS_PORT}/0",
    "TEMPORAL_ADDRESS": f"127.0.0.1:{TEMPORAL_PORT}",
    "SLACK_SIGNING_SECRET": "8f742231b10e8888abcd99yyyzzz85a5",
    "GATEWAY_SERVICE_TOKEN": "service-token-of-the-test-suite",
    "METRICS_TOKEN": "metrics-token-of-the-test-suite",
    "BILLING_URL": "https://billing.example.com/credits",
    "GIT_ALLOWED_PROTOCOLS": "https,ssh,file",
    "REPOSITORIES_DIRECTORY": str(DIRECTORY / "git"),
    "ALLOWED_HOSTS": "localhost,127.0.0.1,testserver",
    "GOGC": "400",  # Temporal collects its garbage less often: a run of the suite is short
}

from config.settings import *  # noqa: E402, F403
from config.settings import DATABASES  # noqa: E402

# The test database is a copy that was migrated already (`tests/migrated_database.py`).
DATABASES["default"]["TEST"] = {"MIGRATE": False}
if not ON_POSTGRES:
    # Threads share a file, not an in-memory database. They wait longer on busy machines.
    DATABASES["default"]["TEST"]["NAME"] = str(DIRECTORY / "test.sqlite3")
    DATABASES["default"]["OPTIONS"] |= {"timeout": 60}
    # No test cuts the power, so nothing waits for the disk.
    DATABASES["default"]["OPTIONS"]["init_command"] += ";PRAGMA synchronous=OFF"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
WHITENOISE_AUTOREFRESH = True  # otherwise every test client scans all static files

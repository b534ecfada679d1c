"""Settings, URLs and processes of the Django project."""

import sys

# structlog imports rich, and redis imports opentelemetry, if something else has installed them, as
# in development. Django's side uses neither, and every process starts a tenth faster without them.
_unused = {"rich", "opentelemetry"} - sys.modules.keys()
sys.modules |= dict.fromkeys(_unused)
try:
    import redis  # noqa: F401
    import structlog  # noqa: F401
finally:
    for _name in _unused:
        del sys.modules[_name]

from config.celery import app as celery_app  # noqa: E402

__all__ = ["celery_app"]

"""The process that runs agents. Imports no Django, so its machine needs no secrets of ours."""

import sys

# If something else has installed rich, structlog imports it, which takes a tenth of the start.
# Nothing here uses it.
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]

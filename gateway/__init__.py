"""The LLM gateway: an ASGI process of its own, without Django."""

import sys

# If something else has installed rich, structlog imports it, which takes a fifth of the gateway's
# start. Nothing here uses it.
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]

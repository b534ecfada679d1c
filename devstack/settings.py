"""What the development stack reads of the environment; the defaults serve `make up`."""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class DemoSettings:
    """Where the demo Slack and the demo model listen, and whom the demo Slack tells."""

    slack_port: int
    model_port: int
    app_url: str
    signing_secret: str
    bot_name: str
    directory: Path


def directory() -> Path:
    """Return the folder that holds everything `make up` keeps (`DEVSTACK_DIR`)."""
    return Path(os.environ.get("DEVSTACK_DIR") or ROOT / ".devstack").resolve()


def demo_settings() -> DemoSettings:
    """Read what the demo Slack and the demo model need."""
    return DemoSettings(
        slack_port=int(os.environ.get("DEMO_SLACK_PORT", "8200")),
        model_port=int(os.environ.get("DEMO_MODEL_PORT", "8300")),
        app_url=os.environ.get("TOLLGATE_URL", "http://127.0.0.1:8000"),
        signing_secret=os.environ.get("SLACK_SIGNING_SECRET", ""),
        bot_name=os.environ.get("BOT_NAME", "Tollgate"),
        directory=directory(),
    )

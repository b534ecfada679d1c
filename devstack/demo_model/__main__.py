"""Run the demo model: `python -m devstack.demo_model`."""

import uvicorn

from devstack.demo_model.app import DemoModel
from devstack.settings import demo_settings


def main() -> None:
    """Serve on the loopback interface until stopped."""
    port = demo_settings().model_port
    uvicorn.run(DemoModel().app, host="127.0.0.1", port=port, log_level="warning", ws="none")


if __name__ == "__main__":
    main()

"""Run the demo model: `python -m devstack.demo_model`."""

import os

import uvicorn

from devstack.demo_model.app import DemoModel
from devstack.settings import read_demo


def main() -> None:
    """Serve on the loopback interface until stopped."""
    uvicorn.run(
        DemoModel().app,
        host="127.0.0.1",
        port=read_demo(os.environ).model_port,
        log_level="warning",
        ws="none",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()

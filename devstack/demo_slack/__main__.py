"""Run the demo Slack: `python -m devstack.demo_slack`."""

import uvicorn

from devstack.demo_slack.app import DemoSlack
from devstack.demo_slack.workspace import furnish
from devstack.settings import demo_settings


def main() -> None:
    """Serve on the loopback interface until stopped; the state is kept in the stack's folder."""
    settings = demo_settings()
    settings.directory.mkdir(parents=True, exist_ok=True)
    slack = DemoSlack(
        f"http://127.0.0.1:{settings.slack_port}",
        settings.app_url,
        settings.signing_secret,
        settings.directory / "demo-slack.sqlite3",
    )
    if slack.workspace.is_empty():
        furnish(slack.workspace, settings.bot_name)
    uvicorn.run(
        slack.app, host="127.0.0.1", port=settings.slack_port, log_level="warning", ws="none"
    )


if __name__ == "__main__":
    main()

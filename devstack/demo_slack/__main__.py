"""Run the demo Slack: `python -m devstack.demo_slack`."""

import os
import sys

import uvicorn

from devstack.demo_slack.app import DemoSlack
from devstack.demo_slack.demo_team import add_demo_team
from devstack.settings import read_demo


def main() -> None:
    """Serve on the loopback interface until stopped; the state is kept in the stack's folder."""
    settings = read_demo(os.environ)
    if not settings.signing_secret:
        sys.exit("SLACK_SIGNING_SECRET is not set: nobody could verify what the demo Slack sends.")
    settings.directory.mkdir(parents=True, exist_ok=True)
    slack = DemoSlack(
        f"http://127.0.0.1:{settings.slack_port}",
        settings.app_url,
        settings.signing_secret,
        settings.directory / "demo-slack.sqlite3",
    )
    if slack.workspace.is_empty():
        add_demo_team(slack.workspace, slack.installations, settings.bot_name, settings.bot_token)
    uvicorn.run(
        slack.app,
        host="127.0.0.1",
        port=settings.slack_port,
        log_level="warning",
        ws="websockets-sansio",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()

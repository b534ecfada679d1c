"""The table of addresses and log-ins that `make up` prints when the stack is ready."""

from devstack.bootstrap import ADMIN, DemoProject
from devstack.settings import Stack


def table(stack: Stack, project: DemoProject) -> str:
    """Return the table of addresses and log-ins as text."""
    public = stack["PUBLIC_URL"]
    rows = [
        ("Admin", f"{public}/admin/", f"{ADMIN} / {stack['ADMIN_PASSWORD']}"),
        ("API", f"{public}/api/docs/", f"project {project.project_id}"),
        ("Gateway", stack["GATEWAY_URL"], "/slack_app/v1/messages and others"),
    ]
    if stack.starts_demo_slack:
        address = f"http://localhost:{stack.ports['DEMO_SLACK_PORT']}/"
        rows.insert(0, ("Demo Slack", address, "mention the bot here"))
    else:
        rows.insert(0, ("Slack", f"{public}/setup/", "the steps to your own Slack"))
    if stack.starts_demo_model:
        address = f"http://localhost:{stack.ports['DEMO_MODEL_PORT']}/"
        rows.append(("Demo model", address, "scripted answers, no real model"))
    if stack.starts_temporal:
        rows.append(("Temporal UI", stack["TEMPORAL_UI_URL"], "workflows and their histories"))
    rows += [
        ("Project token", project.api_token, "the project's member in the quota sorted sets"),
        ("API key", project.personal_api_key, "Authorization: Bearer …"),
        ("Environment", str(stack.directory / "env"), "set -a; . this file; set +a"),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows]
    rule = "─" * max(len(line) + 2 for line in lines)
    return "\n".join(["", rule, "  Tollgate is up. Ctrl-C stops it.", "", *lines, rule, "", ""])

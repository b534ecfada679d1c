"""The lists of all records, in the groups in which people look for them."""

from typing import Any

GROUPS: dict[str, tuple[str, ...]] = {
    "Credits": (
        "billing.account",
        "billing.limit",
        "billing.creditgrant",
        "billing.cap",
        "workflows.costconfirmation",
        "workflows.runquote",
        "quota.setmember",
        "billing.usageevent",
        "billing.dailyusage",
        "billing.runrefund",
        "billing.attemptrefund",
        "billing.quarantinedevent",
        "billing.decisionrecord",
        "billing.thresholdnotice",
        "billing.auditentry",
    ),
    "Slack": (
        "projects.slackworkspace",
        "projects.channelproject",
        "coding_tasks.channeldefault",
        "workflows.mention",
        "workflows.followup",
        "coding_tasks.taskparticipant",
        "workflows.notice",
        "workflows.creditrequest",
        "workflows.creditapprover",
    ),
    "Coding": (
        "coding_tasks.codingtask",
        "coding_tasks.taskrun",
        "coding_tasks.taskbranch",
        "coding_tasks.runchange",
        "coding_tasks.changeundo",
        "coding_tasks.repository",
        "coding_tasks.repositoryrule",
        "coding_tasks.projectagent",
        "coding_tasks.gitcredential",
    ),
    "People and keys": (
        "projects.organization",
        "projects.project",
        "projects.user",
        "auth.group",
        "projects.personalapikey",
        "projects.oauthapplication",
        "projects.oauthaccesstoken",
    ),
}
OTHERS = "Others"


def grouped(app_list: list[dict[str, Any]], address: str) -> list[dict[str, Any]]:
    """Return Django's list of apps as a list of our groups, without empty groups.

    `address` is the address of the page with all groups.
    """
    models = {
        entry["model"]._meta.label_lower: entry for app in app_list for entry in app["models"]
    }
    groups = [
        (name, [models.pop(label) for label in labels if label in models])
        for name, labels in GROUPS.items()
    ]
    groups.append((OTHERS, list(models.values())))
    return [
        {
            "name": name,
            "app_label": name.lower().replace(" ", "-"),
            "app_url": address,
            "has_module_perms": True,
            "models": entries,
        }
        for name, entries in groups
        if entries
    ]

"""The permissions that each report page needs."""

ORGANIZATION_USAGE = ("projects.view_organization", "billing.view_account")
THREADS = ("workflows.view_mention", "coding_tasks.view_codingtask", "billing.view_usageevent")
SETUP = ("projects.view_project", "projects.change_slackworkspace", "billing.view_limit")

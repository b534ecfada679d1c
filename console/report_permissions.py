"""What somebody of the staff must be allowed to see to see a page that reports."""

ORGANIZATION_USAGE = ("projects.view_organization", "billing.view_account")
THREADS = ("workflows.view_mention", "coding_tasks.view_codingtask", "billing.view_usageevent")

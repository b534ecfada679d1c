"""The quota gate as the door asks it: what is limited is refused, doubt is left to others."""

import structlog
from django.db import transaction

from projects.models import Project
from quota import gate
from workflows import closing, notices
from workflows.mention_types import out_of_credits
from workflows.models import FollowUp, Mention, ThreadReply

log = structlog.get_logger(__name__)


def denial(
    about: Mention | FollowUp | ThreadReply, project: Project, *, to_start: bool = False
) -> gate.Verdict | None:
    """Return the verdict that limits the project that would pay, or the author; or None.

    Return None also if nobody knows. The workflow's own gate then waits until somebody does.
    """
    author = about.workspace.distinct_id(about.user_id)
    try:
        verdict = gate.check(project, to_start=to_start, distinct_id=author)
    except gate.QuotaUnknown:
        log.warning("quota unknown: the workflow decides", project=project.pk)
        return None
    return verdict if verdict.limited else None


def refuse(mention: Mention, verdict: gate.Verdict) -> None:
    """End the mention with its one denial."""
    with transaction.atomic():
        if closing.conclude(mention, Mention.State.REFUSED, out_of_credits(verdict.reason)):
            notices.send_soon(notices.claim_denial(mention, verdict))

"""The denial for a run that passed every gate of ours and was then refused by the gateway."""

from django.conf import settings

from coding_tasks.failures import OutOfCredits
from projects.models import Project
from quota import gate
from quota.reasons import CAPS_REACHED, Reason
from workflows import notices, wording
from workflows.models import FollowUp, Mention, Notice


def claim(
    about: Mention | FollowUp, project: Project, refusal: OutOfCredits, *, half_way: bool = False
) -> Notice:
    """Return the one denial of a message whose work the project pays; `half_way`: it had begun.

    The reason is what our own gate says now. Where that still lets work start, a cap was reached
    or what is left was too little for the call.
    """
    author = about.workspace.distinct_id(about.user_id)
    verdict = gate.check(project, to_start=True, distinct_id=author)
    if verdict.limited:
        reason, resets_at, cap = verdict.reason, verdict.resets_at, verdict.cap
    else:
        reached_cap = refusal.cause in CAPS_REACHED
        reason = refusal.cause if reached_cap else Reason.INSUFFICIENT_REMAINING
        resets_at, cap = refusal.resets_at, None
    text = wording.denial(
        reason,
        resets_at,
        bot_name=settings.BOT_NAME,
        billing_url=settings.BILLING_URL,
        time_zone=verdict.time_zone,
        cap=cap,
        half_way=half_way,
    )
    return notices.claim(f"denial:{about.pk}", Notice.Kind.DENIAL, about, text)

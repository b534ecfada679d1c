"""Denials: whether a message is refused for lack of credits, and what its author is told.

Every gate of ours refuses through this module. A message gets one denial, however many gates
refuse it.
"""

from dataclasses import replace
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Subquery

from coding_tasks.failures import OutOfCredits
from coding_tasks.models import CodingTask
from projects.models import Project
from quota import gate
from quota.reasons import CAPS_REACHED, Reason
from quota.resources import AI_CREDITS, RESOURCES
from workflows import closing, notices
from workflows.credit_requests import asking
from workflows.mention_types import out_of_credits
from workflows.models import CreditRequest, FollowUp, Mention, Notice, ThreadReply
from workflows.wording import escape, reset_sentences

log = structlog.get_logger(__name__)

_RESUMED = CreditRequest.State.RESUMED

_CREDITS_USED = "Your team has used its monthly {credits}."
_FIRST_SENTENCES: dict[str, str] = {
    Reason.LIMIT_REACHED: _CREDITS_USED,
    # Sets written by hand, usually by another billing system, carry no reason.
    Reason.SET_BY_HAND: _CREDITS_USED,
    Reason.INSUFFICIENT_REMAINING: "Your team has too few {credits} left to {purpose}.",
    Reason.ORGANIZATION_INACTIVE: (
        "Your team's {credits} are switched off: its organization is not active."
    ),
    Reason.PROJECT_CAP_REACHED: ("This project has used its share of your team's {credits}."),
    Reason.USER_CAP_REACHED: "You have used your share of your team's {credits}.",
    Reason.RUN_CAP_REACHED: "This task has used the {credits} that one task may use.",
}
_UNKNOWN_REASON = "Your team cannot use its {credits} at the moment."
_TOO_LITTLE_LEFT_OF_CAP: dict[str, str] = {
    Reason.PROJECT_CAP_REACHED: (
        "This project has too little of its share of your team's {credits} left to {purpose}."
    ),
    Reason.USER_CAP_REACHED: (
        "You have too little of your share of your team's {credits} left to {purpose}."
    ),
    Reason.RUN_CAP_REACHED: ("Your team lets one task use too few {credits} to {purpose}."),
}
# A top-up does not raise a cap. An administrator does.
_ADVICE: dict[str, str] = {
    Reason.PROJECT_CAP_REACHED: "Ask an administrator of your team to raise the project's share.",
    Reason.USER_CAP_REACHED: "Ask an administrator of your team to raise your share.",
    Reason.RUN_CAP_REACHED: (
        "Try a smaller request, or ask an administrator of your team to raise what one task may "
        "use."
    ),
}


# --- Deciding ------------------------------------------------------------------------------------
def refusal_for(
    about: Mention | FollowUp | ThreadReply, project: Project, *, to_start: bool = False
) -> gate.Verdict | None:
    """Return the verdict that refuses the message, or None if it may go on.

    `project` pays for the work. Also return None if the quota is unknown: the workflow's own gate
    then waits until it is known.
    """
    author = about.workspace.distinct_id(about.user_id)
    try:
        verdict = gate.check(project, to_start=to_start, distinct_id=author)
    except gate.QuotaUnknown:
        log.warning("quota unknown: the workflow decides", project=project.pk)
        return None
    return verdict if verdict.limited else None


def refuse(mention: Mention, verdict: gate.Verdict) -> None:
    """End the mention as refused, and have its denial sent."""
    with transaction.atomic():
        if closing.conclude(mention, Mention.State.REFUSED, out_of_credits(verdict.reason)):
            notices.send_soon(claim(mention, verdict))


# --- Claiming ------------------------------------------------------------------------------------
def claim(about: Mention | FollowUp, verdict: gate.Verdict) -> Notice:
    """Return the denial for a refused message, creating it if needed. The caller must send it.

    Replies that do not mention the bot share one denial for each task. If their thread has had any
    denial since the task began, they share that one.
    """
    key = _key_of(about)
    if isinstance(about, Mention):
        denial = notices.claim(key, Notice.Kind.DENIAL, about, text(verdict))
        asking.offer(about, verdict)
        return denial
    if not about.addressed:
        if earlier := _denial_since_task_began(about):
            return earlier
        key = _key(about.workflow_id)
    return notices.claim(key, Notice.Kind.DENIAL, about, text(verdict))


def claim_after_gateway_refusal(
    about: Mention | FollowUp, project: Project, refusal: OutOfCredits, *, half_way: bool = False
) -> Notice:
    """Return the denial for a message whose work the gateway refused, creating it if needed.

    `half_way` says that the work had begun. The reason given is that of our own gate. If our gate
    would still let work start, either a cap was reached or too little is left for the call.
    """
    author = about.workspace.distinct_id(about.user_id)
    verdict = gate.check(project, to_start=True, distinct_id=author)
    if not verdict.limited:
        reached_cap = refusal.cause in CAPS_REACHED
        reason = refusal.cause if reached_cap else Reason.INSUFFICIENT_REMAINING
        verdict = replace(verdict, reason=reason, resets_at=refusal.resets_at, cap=None)
    words = text(verdict, half_way=half_way)
    return notices.claim(_key_of(about), Notice.Kind.DENIAL, about, words)


def claimed_for(mention: Mention) -> Notice | None:
    """Return the denial that was claimed for a mention, if any."""
    return Notice.objects.filter(key=_key_of(mention)).first()


def _key_of(about: Mention | FollowUp) -> str:
    """Return the key of a message's denial. A mention that began anew can have a second one."""
    again = isinstance(about, Mention) and _began_anew(about)
    return f"{_key(about.pk)}:again" if again else _key(about.pk)


def _began_anew(mention: Mention) -> bool:
    if mention.is_new:  # as most mentions are, which saves a query
        return False
    return CreditRequest.objects.filter(mention=mention, state=_RESUMED).exists()


def _key(subject: UUID | str) -> str:
    """Return the key of the denial for a message, or for all plain replies to a workflow."""
    return f"denial:{subject}"


def _denial_since_task_began(about: FollowUp) -> Notice | None:
    task = CodingTask.objects.filter(workflow_id=about.workflow_id)
    return Notice.objects.filter(
        kind=Notice.Kind.DENIAL,
        workspace_id=about.workspace_id,
        channel_id=about.channel_id,
        thread_ts=about.thread_ts,
        created_at__gte=Subquery(task.values("created_at")),
    ).first()


# --- Wording -------------------------------------------------------------------------------------
def credits_name(resource: str) -> str:
    """Return what people call the credits of a bucket."""
    title = RESOURCES[resource].title
    return f"{settings.BOT_NAME} {title}" if resource == AI_CREDITS else title


def text(verdict: gate.Verdict, *, half_way: bool = False) -> str:
    """Return why there are no credits to use, when they come back and what can be done about it.

    `half_way` says that the work had begun. An unknown reason gets a general sentence.
    """
    if verdict.cap in _TOO_LITTLE_LEFT_OF_CAP:
        why = _TOO_LITTLE_LEFT_OF_CAP[verdict.cap]
    else:
        why = _FIRST_SENTENCES.get(verdict.reason or "", _UNKNOWN_REASON)
    purpose = "go on" if half_way else "start"
    top_up = f"Top up at {escape(settings.BILLING_URL)} to continue."
    sentences = [
        *(["I had to stop half-way."] if half_way else []),
        why.format(credits=escape(credits_name(verdict.resource)), purpose=purpose),
        *reset_sentences(verdict.resets_at, verdict.time_zone),
        _ADVICE.get(verdict.cap or verdict.reason or "", top_up),
    ]
    return " ".join(sentences)

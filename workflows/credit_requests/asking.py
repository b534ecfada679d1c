"""The offer to ask for credits after a denial, and the request that follows from a click on it.

The offer is shown to the mention's author alone. The request goes to the workspace's credits
channel, where `workflows.credit_requests.deciding` takes the answer.
"""

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from billing.credits import display, exact
from projects.models import SlackWorkspace
from quota.gate import Verdict
from quota.reasons import Reason
from quota.resources import MICRO
from workflows import notices
from workflows.credit_requests import forms, words
from workflows.credit_requests.credits_left import account_state, left_micro
from workflows.credit_requests.messages import message_key, tell_deciders_what_is_asked
from workflows.credit_requests.typical_cost import typical_cost_micro
from workflows.mention_types import OUT_OF_CREDITS
from workflows.models import ERASED, CreditRequest, Mention, Notice
from workflows.requests import all_that_was_asked, is_stopped_later

LAPSES_AFTER = timedelta(days=3)
"""How long a request waits. Later, its author has probably solved the problem in another way."""
MOST_OPEN = 3
"""Open requests of one person, so that nobody floods those who decide."""
_WITHOUT_HISTORY_MICRO = 40 * MICRO
"""What one task is granted without a history: enough to reserve an agent's first calls."""
_CURED_BY_A_TOP_UP = (Reason.LIMIT_REACHED, Reason.INSUFFICIENT_REMAINING)


def offer(mention: Mention, verdict: Verdict) -> None:
    """Offer the author of a refused mention to ask, if a top-up helps and somebody can decide.

    If the mention repeats one whose request waits, it takes over that request.
    """
    workspace = mention.workspace
    might_have_one = mention.takes_up_id or not mention.is_new
    if might_have_one and _has_request(mention):
        return
    if verdict.reason not in _CURED_BY_A_TOP_UP or verdict.cap or not can_be_decided(workspace):
        return
    text = words.offer()
    notices.claim(
        f"offer:{mention.pk}",
        Notice.Kind.OFFER,
        mention,
        text,
        blocks=forms.offer_blocks(text, mention.pk),
        only_to_user=True,
    )


def can_be_decided(workspace: SlackWorkspace) -> bool:
    """Return whether the workspace has a credits channel, and somebody who may decide requests."""
    approvers = workspace.credit_approvers.filter(user__is_active=True, user__is_staff=True)
    return bool(workspace.credits_channel_id) and approvers.exists()


def ask(workspace: SlackWorkspace, mention: Mention, user_id: str) -> str:
    """Handle a click on the offer. Return the answer for the person who clicked."""
    if user_id != mention.user_id:
        return words.not_yours()
    request = CreditRequest.objects.filter(mention=mention).first()
    if request is not None:
        waits = request.state in CreditRequest.WAITING
        return words.asked_already() if waits else words.cannot_ask()
    if not (_can_run(mention) and can_be_decided(workspace)):
        return words.cannot_ask()
    with transaction.atomic():
        _take_turn(workspace)
        if CreditRequest.objects.filter(mention=mention).exists():  # a second click
            return words.asked_already()
        if _open_requests_of(workspace, user_id) >= MOST_OPEN:
            return words.asked_too_often()
        _record(workspace, mention)
    return words.asked(workspace.credits_channel_id)


def askable_mention(workspace: SlackWorkspace, user_id: str) -> Mention | None:
    """Return the person's newest refused mention, if they can still ask for credits for it."""
    refused = Mention.objects.filter(
        workspace=workspace,
        user_id=user_id,
        state=Mention.State.REFUSED,
        outcome__startswith=OUT_OF_CREDITS,
        received_at__gt=timezone.now() - LAPSES_AFTER,
    )
    mention = refused.order_by("-received_at").first()
    if mention is None or CreditRequest.objects.filter(mention=mention).exists():
        return None
    mention.workspace = workspace
    return mention if _can_run(mention) and can_be_decided(workspace) else None


@transaction.atomic
def _has_request(mention: Mention) -> bool:
    """Return whether the mention has a request, after taking over that of the mention it takes up.

    Otherwise neither mention would run: the earlier one was taken up, and nobody asked for this
    one.
    """
    if CreditRequest.objects.filter(mention=mention).exists():
        return True
    waits = CreditRequest.objects.filter(
        mention=mention.takes_up_id, state__in=CreditRequest.WAITING
    )
    request = waits.first() if mention.takes_up_id else None
    if request is None or not waits.update(mention=mention):
        return False
    Notice.objects.filter(key=message_key(request)).update(mention=mention)
    request.mention = mention
    tell_deciders_what_is_asked(request)
    return True


def _can_run(mention: Mention) -> bool:
    """Return whether only the lack of credits still keeps the mention from running."""
    return (
        mention.state == Mention.State.REFUSED
        and mention.outcome.startswith(OUT_OF_CREDITS)
        and mention.text != ERASED
        and mention.received_at > timezone.now() - LAPSES_AFTER
        and not Mention.objects.filter(takes_up=mention).exists()
        and not is_stopped_later(mention)
    )


def _take_turn(workspace: SlackWorkspace) -> None:
    """Lock the workspace, so that simultaneous clicks are counted one after the other."""
    SlackWorkspace.objects.select_for_update().only("pk").get(pk=workspace.pk)


def _open_requests_of(workspace: SlackWorkspace, user_id: str) -> int:
    return CreditRequest.objects.filter(
        mention__workspace=workspace, mention__user_id=user_id, state__in=CreditRequest.WAITING
    ).count()


def _record(workspace: SlackWorkspace, mention: Mention) -> None:
    typical = typical_cost_micro(mention.project)
    left = left_micro(account_state(workspace))
    request = CreditRequest.objects.create(
        mention=mention, suggested_micro=_suggestion_micro(typical, left)
    )
    text = words.asks(
        mention.user_id,
        all_that_was_asked(mention),
        remaining=words.remaining(None if left is None else display(max(left, 0))),
        typical=None if typical is None else display(typical),
    )
    notice, _ = Notice.objects.get_or_create(
        key=message_key(request),
        defaults={
            "kind": Notice.Kind.CREDIT_REQUEST,
            "workspace": workspace,
            "mention": mention,
            "channel_id": workspace.credits_channel_id,
            "text": text,
            "blocks": forms.request_blocks(text, request.pk, exact(request.suggested_micro)),
        },
    )
    notices.send_soon(notice)


def _suggestion_micro(typical: int | None, left: int | None) -> int:
    """Return the cost of one task plus any overrun, in micro-credits that make whole credits."""
    beyond = max(0, -(left or 0))
    whole = -(-((typical or _WITHOUT_HISTORY_MICRO) + beyond) // MICRO)
    return max(whole, 1) * MICRO

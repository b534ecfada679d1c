"""Decisions on requests for credits: who may decide, and what follows from an approval.

However often somebody clicks, an approval makes one grant: the request's row is locked, and its id
is the grant's idempotency key. `workflows.credit_requests.resuming` then lets the mention run.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from billing.allowances.grants import grant_credits
from billing.credits import display, exact
from projects.hints import run_soon
from projects.models import SlackWorkspace
from quota.resources import AI_CREDITS, MICRO
from workflows.credit_requests import words
from workflows.credit_requests.credits_left import account_state, left_micro
from workflows.credit_requests.messages import tell_author, tell_deciders
from workflows.models import CreditApprover, CreditRequest

RESUME = "workflows.tasks.resume_requested"
FOR_ONE_TASK = timedelta(days=7)
"""How long an amount for one task can be used: as long as a paused run waits."""


class Refused(Exception):
    """The decision does not count. The text tells the person why."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who decides about which request."""

    workspace: SlackWorkspace
    request_id: UUID
    slack_user_id: str


def approve(
    decision: Decision, amount_micro: int | None, expires_at: datetime | None, reason: str
) -> None:
    """Grant the amount, by default the suggested one, and let the mention run.

    Raises `Refused`.
    """
    with transaction.atomic():
        request, approver = _open_request(decision)
        workspace = decision.workspace
        amount = request.suggested_micro if amount_micro is None else amount_micro
        if amount_micro is None:
            expires_at = timezone.now() + FOR_ONE_TASK
        try:
            grant_credits(
                workspace.project.organization,
                AI_CREDITS,
                amount,
                expires_at=expires_at,
                idempotency_key=f"credit-request:{request.pk}",
                reason=reason or f"asked for by {request.mention.user_id} in Slack",
                actor=f"{approver.user.get_username()} (Slack {decision.slack_user_id})",
            )
        except ValueError as error:  # for example, the period ended while the form was open
            raise Refused(str(error)) from error
        _check_it_helps(workspace, amount)
        _end(request, decision, approver, CreditRequest.State.APPROVED, reason)
        CreditRequest.objects.filter(pk=request.pk).update(granted_micro=amount)
        tell_deciders(
            request, words.approved(decision.slack_user_id, display(amount), until=expires_at)
        )
        transaction.on_commit(lambda: run_soon(RESUME, str(request.pk)))


def decline(decision: Decision, reason: str) -> None:
    """Refuse the request, and tell its author why. Raises `Refused`."""
    with transaction.atomic():
        request, approver = _open_request(decision)
        _end(request, decision, approver, CreditRequest.State.DECLINED, reason)
        CreditRequest.objects.filter(pk=request.pk).update(ended_at=timezone.now())
        said = words.declined(decision.slack_user_id, reason)
        tell_deciders(request, said)
        tell_author(request, said)


def check_open(decision: Decision) -> CreditRequest:
    """Return the request if it may still be decided, and by this person. Raises `Refused`."""
    with transaction.atomic():
        return _open_request(decision)[0]


def _open_request(decision: Decision) -> tuple[CreditRequest, CreditApprover]:
    """Return the locked request and the person who may decide it. Raises `Refused`."""
    approver = _approver(decision.workspace, decision.slack_user_id)
    found = CreditRequest.objects.select_for_update(of=("self",)).select_related("mention")
    request = found.filter(pk=decision.request_id, mention__workspace=decision.workspace).first()
    if request is None:
        raise Refused(words.cannot_ask())
    if request.state != CreditRequest.State.ASKED:
        raise Refused(words.decided_already(request.state))
    return request, approver


def may_decide(workspace: SlackWorkspace, slack_user_id: str) -> bool:
    """Return whether this person may approve requests for credits."""
    try:
        _approver(workspace, slack_user_id)
    except Refused:
        return False
    return True


def _approver(workspace: SlackWorkspace, slack_user_id: str) -> CreditApprover:
    found = workspace.credit_approvers.filter(slack_user_id=slack_user_id).select_related("user")
    approver = found.first()
    if approver is None or not (
        approver.user.is_active
        and approver.user.is_staff
        and approver.user.has_perm("billing.add_creditgrant")
    ):
        raise Refused(words.no_right())
    return approver


def _check_it_helps(workspace: SlackWorkspace, amount_micro: int) -> None:
    """Raise `Refused`, which rolls back the grant, if work still could not start."""
    state = account_state(workspace)
    least = int(settings.START_CREDITS * MICRO)
    left = left_micro(state)
    if left is not None and left < least:
        raise Refused(words.too_little(exact(amount_micro + least - left)))
    if state is not None and state.limited:
        raise Refused(words.cannot_help())


def _end(
    request: CreditRequest,
    decision: Decision,
    approver: CreditApprover,
    state: str,
    reason: str,
) -> None:
    request.state = state
    request.decided_by = approver.user
    request.decider_slack_user_id = decision.slack_user_id
    request.reason = reason[:300]
    request.save(update_fields=["state", "decided_by", "decider_slack_user_id", "reason"])

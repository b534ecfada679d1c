"""What is left of the AI credits that pay for a workspace's work."""

from projects.models import SlackWorkspace
from quota.account_state import AccountState
from quota.models import QuotaState
from quota.resources import AI_CREDITS


def account_state(workspace: SlackWorkspace) -> AccountState | None:
    """Return what billing decided last, or None if it never decided."""
    state = QuotaState.objects.filter(
        organization=workspace.project.organization_id, resource=AI_CREDITS
    ).first()
    return None if state is None else state.published


def left_micro(state: AccountState | None) -> int | None:
    """Return what is left in micro-credits, negative after an overrun; None without a limit."""
    if state is None or state.allotment_micro is None:
        return None
    return state.allotment_micro - sum(state.booked.values())

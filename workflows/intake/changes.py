"""Edits and deletions of mentions on which no work has begun. Later ones change nothing."""

from coding_tasks.models import CodingTask
from workflows import client, closing
from workflows.credit_requests import resuming
from workflows.models import ERASED, CreditRequest, Mention

_DELETED = "deleted before its work began"


def rewrite(mention: Mention, text: str) -> None:
    """Take the new text, if the mention is undecided or waits for credits that were asked for."""
    same = Mention.objects.filter(pk=mention.pk).exclude(text=ERASED)
    undecided = same.filter(state=Mention.State.RECEIVED)
    if not undecided.update(text=text):
        waits = CreditRequest.objects.filter(mention=mention, state__in=CreditRequest.WAITING)
        if waits.exists():
            same.filter(state=Mention.State.REFUSED).update(text=text)


def withdraw(mention: Mention) -> None:
    """End the mention and its workflow in silence, unless it has a task already."""
    resuming.drop(mention)
    if CodingTask.objects.filter(workflow_id=mention.workflow_id).exclude(workflow_id="").exists():
        return
    if closing.close(mention.pk, Mention.State.STOPPED, _DELETED) and mention.workflow_id:
        client.cancel_all([mention.workflow_id])

"""Edits and deletions of mentions on which no work has begun. Later ones change nothing."""

from coding_tasks.models import CodingTask
from workflows import client, closing
from workflows.credit_requests import resuming
from workflows.credit_requests.messages import tell_deciders_what_is_asked
from workflows.mention_types import workflow_id
from workflows.models import ERASED, CreditRequest, Mention

_DELETED = "deleted before its work began"


def rewrite(mention: Mention, text: str) -> None:
    """Take the new text, if the mention is undecided or waits for credits that were asked for."""
    same = Mention.objects.filter(pk=mention.pk).exclude(text=ERASED)
    undecided = same.filter(state=Mention.State.RECEIVED)
    if undecided.update(text=text):
        return
    waits = CreditRequest.objects.filter(mention=mention, state__in=CreditRequest.WAITING)
    request = waits.select_related("mention__workspace").defer("mention__workspace__bot_token")
    waiting = request.first()
    if waiting is None or waiting.mention.text == text:
        return
    if same.filter(state=Mention.State.REFUSED).update(text=text):
        waiting.mention.text = text
        tell_deciders_what_is_asked(waiting)


def withdraw(mention: Mention) -> None:
    """End the mention and its workflow in silence, unless it has a task already."""
    resuming.drop(Mention.objects.filter(pk=mention.pk))
    # The row may have been read before another process started the workflow.
    own = workflow_id(mention.team_id, mention.channel_id, mention.ts)
    if CodingTask.objects.filter(workflow_id=own).exists():
        return
    if closing.close(mention.pk, Mention.State.STOPPED, _DELETED):
        client.cancel_all([own])

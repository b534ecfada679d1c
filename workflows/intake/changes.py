"""Edits and deletions of mentions on which no work has begun. Later ones change nothing."""

from django.utils import timezone

from coding_tasks.agent_choice import known_agents
from coding_tasks.agents.choice import choose_agent
from coding_tasks.models import CodingTask, TaskRun
from projects.models import SlackWorkspace
from workflows import closing
from workflows.credit_requests import resuming
from workflows.credit_requests.messages import tell_deciders_what_is_asked
from workflows.mention_types import workflow_id
from workflows.models import ERASED, CreditRequest, Mention
from workflows.quotes import ending
from workflows.requests import all_that_was_asked
from workflows.temporal import client


def rewrite(mention: Mention, text: str) -> None:
    """Store the new text, if the mention is undecided or waits for credits or for a click."""
    same = Mention.objects.filter(pk=mention.pk).exclude(text=ERASED)
    undecided = same.filter(state=Mention.State.RECEIVED)
    if undecided.update(text=text):
        return
    if quote := ending.open_question(mention):
        same.update(text=text)
        mention.text = text
        asked = all_that_was_asked(mention)
        wanted = choose_agent(asked, known_agents()).request or asked
        TaskRun.objects.filter(pk=quote.run_id, state=TaskRun.State.QUEUED).update(request=wanted)
        return
    waits = CreditRequest.objects.filter(mention=mention, state__in=CreditRequest.WAITING)
    request = waits.select_related("mention__workspace").defer("mention__workspace__bot_token")
    waiting = request.first()
    if waiting is None or waiting.mention.text == text:
        return
    if same.filter(state=Mention.State.REFUSED).update(text=text):
        waiting.mention.text = text
        tell_deciders_what_is_asked(waiting)


def withdraw_run(workspace: SlackWorkspace, channel_id: str, ts: str) -> None:
    """End the run of a deleted message, if its question about the cost is open."""
    if ended := ending.withdraw(workspace, channel_id, ts, timezone.now()):
        client.cancel_all([ended])


def withdraw(mention: Mention) -> None:
    """End the mention and its workflow without a message, unless it has a task already."""
    resuming.drop(Mention.objects.filter(pk=mention.pk))
    # The row may have been read before another process started the workflow.
    own = workflow_id(mention.team_id, mention.channel_id, mention.ts)
    if CodingTask.objects.filter(workflow_id=own).exists():
        return
    if closing.close(mention.pk, Mention.State.STOPPED, ending.DELETED):
        client.cancel_all([own])

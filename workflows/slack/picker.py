"""The repository picker: the message in the thread, its options, and the value of a choice.

Both `block_id`, which holds the mention, and `value`, which holds the choice, are signed, because
they come back through the user's browser. Slack allows at most 100 options, and 75 characters for a
label, 150 for a value and 255 for a block id (https://docs.slack.dev/reference/block-kit/).
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.core import signing

from coding_tasks.models import Repository
from workflows import wording
from workflows.mention_types import NO_REPOSITORY

ACTION_ID = "tollgate_repository"
START_ANEW_ACTION_ID = "tollgate_start_anew"
"""Of the picker that starts an answered request anew."""
MAX_OPTIONS = 100
MAX_LABEL = 75
_MENTION = signing.Signer(salt="tollgate.picker.mention")
_CHOICE = signing.Signer(salt="tollgate.picker.choice")


@dataclass(frozen=True)
class Choice:
    """The repository chosen for a mention, or `NO_REPOSITORY`, read from a verified value."""

    mention_id: UUID
    repository_id: int


def blocks(
    mention_id: UUID, user_id: str, *, question: str = "", action_id: str = ACTION_ID
) -> list[dict[str, Any]]:
    """Return the picker's message: a question and a select that searches while the user types."""
    return [
        {
            "type": "section",
            "block_id": block_id(mention_id),
            "text": {"type": "mrkdwn", "text": question or wording.picker_question(user_id)},
            "accessory": {
                "type": "external_select",
                "action_id": action_id,
                "min_query_length": 0,
                "placeholder": {"type": "plain_text", "text": wording.picker_placeholder()},
            },
        }
    ]


def block_id(mention_id: UUID) -> str:
    """Return the block id that names the mention, signed."""
    return _MENTION.sign(mention_id.hex)


def mention_of(block_id: str) -> UUID:
    """Return the mention in a block id. Raise `signing.BadSignature` if we did not sign it."""
    return _uuid(_MENTION.unsign(block_id))


def options(project_id: int, mention_id: UUID, query: str) -> list[dict[str, Any]]:
    """Return the project's repositories whose names contain the query, as options of the select.

    The first option is to choose no repository, if the query matches its label.
    """
    sought = query.strip()
    found = Repository.objects.filter(project_id=project_id, full_name__icontains=sought)
    labels = {each.pk: each.full_name for each in found.order_by("full_name")[:MAX_OPTIONS]}
    if sought.lower() in wording.picker_none().lower():
        labels = {NO_REPOSITORY: wording.picker_none()} | labels
    return [
        {
            "text": {"type": "plain_text", "text": _label(label)},
            "value": value(Choice(mention_id, repository_id)),
        }
        for repository_id, label in list(labels.items())[:MAX_OPTIONS]
    ]


def value(choice: Choice) -> str:
    """Return the signed value of an option."""
    return _CHOICE.sign(f"{choice.mention_id.hex}|{choice.repository_id}")


def read(value: str) -> Choice:
    """Return the choice in a value. Raise `signing.BadSignature` if we did not sign it."""
    mention, _, repository = _CHOICE.unsign(value).partition("|")
    return Choice(_uuid(mention), int(repository))


def _uuid(text: str) -> UUID:
    return UUID(hex=text)


def _label(name: str) -> str:
    return name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "…"

"""What a person asked for: the text of their messages without Slack's markup."""

import re
import unicodedata
from decimal import Decimal
from typing import Protocol

from django.db.models import QuerySet

from coding_tasks.models import TaskRun
from workflows.mention_types import workflow_id
from workflows.models import FollowUp, Mention, ThreadReply

_STOP_WORDS = {
    "English": ("stop", "cancel", "abort", "halt"),
    "German": ("stopp", "abbrechen", "abbruch"),
    "French": ("arrête", "arrete", "annuler"),
    "Spanish and Portuguese": ("detener", "cancelar", "parar"),
    "Italian": ("ferma", "annulla"),
}
STOP_WORDS = frozenset(word for words in _STOP_WORDS.values() for word in words)
"""A message of these words and courtesies only ends the work. docs/threads.md lists them."""
_GO_ON_WORDS = {
    "English": ("continue", "go on", "carry on", "keep going", "resume", "proceed"),
    "German": ("weiter", "weitermachen", "mach weiter", "fortfahren", "fortsetzen"),
    "French": ("continuer", "continuez", "poursuivre"),
    "Spanish and Portuguese": ("continuar", "continúa", "seguir", "sigue"),
    "Italian": ("continua", "continuare"),
}
GO_ON_WORDS = frozenset(words for each in _GO_ON_WORDS.values() for words in each)
"""A message of these words and courtesies goes on with stopped work. docs/threads.md lists them."""
ASIDE = "//"
_COURTESIES = frozenset(("please", "pls", "now", "it", "this", "that", "thanks", "bitte", "jetzt"))
_LONGEST_ORDER = 200
"""Characters. A longer message is not an order to stop."""
# Tags, entities and emoji: `<@U1>`, `&amp;`, `:wave::skin-tone-2:`.
_MARKUP = re.compile(r"<[@#!][^<>]*>|&(?:amp|lt|gt);|:[^\s:<>]+:")
# Tags of persons, of groups and of everybody in a channel.
_PEOPLE = re.compile(r"<(?:@|!subteam\^|!(?:here|channel|everyone)\b)[^<>]*>")
_WORD = re.compile(r"[^\W_]+")
_LONGEST_CHAIN = 20

# "<" is excluded inside: otherwise each unclosed one is searched to the end of the text.
_LINK = re.compile(r"<((?:https?|mailto|ssh)[^|<>]*)(?:\|([^<>]*))?>")


def request_text(message: Mention | FollowUp) -> str:
    """Return the message as the person typed it, without the mention of the bot."""
    return readable(message.text, message.workspace.bot_user_id) or "(no text)"


def message_of(run: TaskRun) -> Mention | FollowUp:
    """Return the message that a run answers: the mention that began its task, or the follow-up."""
    where = {
        "workspace": run.task.workspace_id,
        "channel_id": run.task.channel_id,
        "ts": run.message_ts,
    }
    began = Mention.objects.filter(**where, workflow_id=run.task.workflow_id).first()
    follow_up = None if began else FollowUp.objects.filter(**where).first()
    return began or follow_up or Mention.objects.get(**where)


def all_that_was_asked(mention: Mention) -> str:
    """Return everything the author asked for, as they typed it.

    That is the mention's own text, the request it takes up, and the replies to that request.
    """
    bot_user_id = mention.workspace.bot_user_id
    texts = [readable(text, bot_user_id) for text in texts_of(mention)]
    return "\n\n".join(filter(None, texts)) or "(no text)"


def texts_of(mention: Mention) -> list[str]:
    """Return the texts of a request, oldest first, with Slack's markup."""
    return [text for _, text in _parts_of(mention) if not is_bare(text)]


def stamps_of(message: Mention | FollowUp) -> set[str]:
    """Return the `ts` of every message that is a part of the request."""
    if not isinstance(message, Mention):
        return {message.ts}
    repeated = {message.repeats.message_ts} if message.repeats else set()
    return {message.ts, *repeated, *(ts for ts, _ in _parts_of(message))}


def _parts_of(mention: Mention) -> list[tuple[str, str]]:
    """Return `ts` and text of the messages that make up a request, oldest first."""
    parts: list[tuple[str, str]] = []
    seen: Mention | None = mention
    for _ in range(_LONGEST_CHAIN):
        if seen is None:
            break
        own = "" if seen.goes_on and is_go_on(seen.text) else seen.text
        parts[:0] = [(seen.ts, own), *(() if seen is mention else _additions(seen))]
        seen = seen.takes_up
    return parts


def is_bare(text: str) -> bool:
    """Return whether a message has no letter or digit outside tags and emoji."""
    return _WORD.search(_MARKUP.sub(" ", text)) is None


def is_aside(text: str, bot_user_id: str) -> bool:
    """Return whether a message is for people only, because it begins with `//`."""
    return readable(text, bot_user_id).startswith(ASIDE)


def is_stop(text: str) -> bool:
    """Return whether a message is an order to stop and nothing else."""
    if len(text) > _LONGEST_ORDER:
        return False
    plain = unicodedata.normalize("NFKC", _MARKUP.sub(" ", text))
    words = {word.casefold() for word in _WORD.findall(plain)}
    return bool(words & STOP_WORDS) and words <= STOP_WORDS | _COURTESIES


def is_go_on(text: str) -> bool:
    """Return whether a message only says to go on."""
    if len(text) > _LONGEST_ORDER:
        return False
    plain = unicodedata.normalize("NFKC", _MARKUP.sub(" ", text))
    words = [word.casefold() for word in _WORD.findall(plain)]
    return " ".join(word for word in words if word not in _COURTESIES) in GO_ON_WORDS


class InThread(Protocol):
    """Anything that belongs to a thread: a row of a message, or an order."""

    @property
    def workspace_id(self) -> int: ...

    @property
    def channel_id(self) -> str: ...

    @property
    def thread_ts(self) -> str: ...


def of_thread(message: InThread) -> QuerySet[Mention]:
    """Return the mentions in the message's thread."""
    return Mention.objects.filter(
        workspace=message.workspace_id,
        channel_id=message.channel_id,
        thread_ts=message.thread_ts,
    )


def requests_before(order: Mention) -> QuerySet[Mention]:
    """Return what the author of an order to stop asked for in the thread before it."""
    own = of_thread(order).filter(user_id=order.user_id)
    earlier = [each.pk for each in own if Decimal(each.ts) < Decimal(order.ts)]
    return Mention.objects.filter(pk__in=earlier)


def is_stopped_later(message: Mention | FollowUp | ThreadReply) -> bool:
    """Return whether the author later ordered a stop, even if that order arrived first."""
    own = of_thread(message).filter(user_id=message.user_id).values_list("text", "ts")
    return any(is_stop(text) and Decimal(ts) > Decimal(message.ts) for text, ts in own)


def is_stop_for_others(text: str) -> bool:
    """Return whether a message without a mention of the bot tells other people to stop."""
    return is_stop(text) and _PEOPLE.search(text) is not None


def _additions(mention: Mention) -> list[tuple[str, str]]:
    """Return `ts` and text of the replies to a mention that were not answered.

    There was no task for them, or there were no credits.
    """
    own = workflow_id(mention.team_id, mention.channel_id, mention.ts)
    unanswered = [FollowUp.State.DROPPED, FollowUp.State.REFUSED]
    replies = FollowUp.objects.filter(workflow_id=own, state__in=unanswered)
    return list(replies.order_by("ts").values_list("ts", "text")[:_LONGEST_CHAIN])


def readable(text: str, bot_user_id: str) -> str:
    """Return Slack's text as people read it, without the mention of the bot.

    Slack escapes three characters and wraps addresses in angle brackets:
    https://docs.slack.dev/messaging/formatting-message-text/#escaping
    """
    tag = rf"<@{re.escape(bot_user_id)}(?:\|[^<>]*)?>"
    text = re.sub(tag, " ", text)
    text = _LINK.sub(lambda link: link[2] or link[1], text)
    text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return text.strip()

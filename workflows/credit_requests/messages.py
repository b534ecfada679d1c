"""Messages about a request for credits to those who decide, and to the mention's author."""

from hashlib import sha256

from workflows import notices
from workflows.credit_requests import words
from workflows.models import CreditRequest, Notice
from workflows.requests import all_that_was_asked

_UNDELIVERED = "undelivered"


def message_key(request: CreditRequest) -> str:
    """Return the key of the notice that asks for a decision."""
    return f"credit-request:{request.pk}"


def tell_deciders(request: CreditRequest, text: str) -> None:
    """Reply to the message that asked for a decision how the request ended.

    If that message was not sent yet, send neither.
    """
    unsent = Notice.objects.filter(key=message_key(request), state=Notice.State.PENDING)
    if unsent.update(state=Notice.State.GIVEN_UP, error="the request has ended"):
        return
    _tell_below(request, "ended", text)


def tell_deciders_what_is_asked(request: CreditRequest) -> None:
    """Reply to the message that asked for a decision what the author asks for now."""
    asked = all_that_was_asked(request.mention)
    digest = sha256(asked.encode()).hexdigest()[:16]
    _tell_below(request, f"changed:{digest}", words.changed(request.mention.user_id, asked))


def tell_not_delivered(request: CreditRequest) -> None:
    """Tell the author once that Slack refuses the message to those who decide."""
    if not Notice.objects.filter(key=f"{message_key(request)}:{_UNDELIVERED}").exists():
        _tell_author(request, _UNDELIVERED, words.not_delivered())


def tell_author(request: CreditRequest, text: str) -> None:
    """Tell the mention's author, and nobody else, how the request ended."""
    _tell_author(request, "author", text)


def _tell_author(request: CreditRequest, what: str, text: str) -> None:
    told = notices.claim(
        f"{message_key(request)}:{what}",
        Notice.Kind.OFFER,
        request.mention,
        text,
        only_to_user=True,
    )
    notices.send_soon(told)


def _tell_below(request: CreditRequest, what: str, text: str) -> None:
    asked = Notice.objects.filter(key=message_key(request)).exclude(message_ts="").first()
    if asked is None:  # it was never sent
        return
    notice, _ = Notice.objects.get_or_create(
        key=f"{asked.key}:{what}",
        defaults={
            "kind": Notice.Kind.CREDIT_REQUEST,
            "workspace_id": asked.workspace_id,
            "mention_id": asked.mention_id,
            "channel_id": asked.channel_id,
            "thread_ts": asked.message_ts,
            "text": text,
        },
    )
    notices.send_soon(notice)

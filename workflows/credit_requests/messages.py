"""Messages about a request for credits to those who decide, and to the mention's author."""

from workflows import notices
from workflows.credit_requests.asking import message_key
from workflows.models import CreditRequest, Notice


def tell_deciders(request: CreditRequest, text: str) -> None:
    """Say below the message that asked for a decision what became of the request."""
    asked = Notice.objects.filter(key=message_key(request)).exclude(message_ts="").first()
    if asked is None:  # it was never sent
        return
    notice, _ = Notice.objects.get_or_create(
        key=f"{asked.key}:ended",
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


def tell_author(request: CreditRequest, text: str) -> None:
    """Tell the mention's author alone what became of the request."""
    told = notices.claim(
        f"{message_key(request)}:author",
        Notice.Kind.OFFER,
        request.mention,
        text,
        only_to_user=True,
    )
    notices.send_soon(told)

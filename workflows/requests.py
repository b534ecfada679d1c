"""What a person asked for: a Slack message without Slack's markup."""

import re

from workflows.models import FollowUp, Mention

# No "<" inside: of very many that are never closed, each would be searched to the end of the text.
_LINK = re.compile(r"<((?:https?|mailto|ssh)[^|<>]*)(?:\|([^<>]*))?>")


def request_text(message: Mention | FollowUp) -> str:
    """Return the message as the person typed it, without the mention of the bot.

    Slack escapes three characters and wraps addresses in angle brackets:
    https://docs.slack.dev/messaging/formatting-message-text/#escaping
    """
    tag = rf"<@{re.escape(message.workspace.bot_user_id)}(?:\|[^<>]*)?>"
    text = re.sub(tag, " ", message.text)
    text = _LINK.sub(lambda link: link[2] or link[1], text)
    text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return text.strip() or "(no text)"

"""How much Slack accepts. That has changed before, and differs from its documentation."""

from dataclasses import dataclass


@dataclass
class Limits:
    """The longest text and the longest blocks of a message, in characters, and how many blocks.

    Longer texts are refused (`msg_too_long`), although the documentation says they are cut:
    https://docs.slack.dev/reference/methods/chat.postMessage/#truncating
    About 13,200 characters of blocks are accepted: https://github.com/slackapi/bolt-js/issues/2509
    """

    text: int = 40_000
    blocks_text: int = 13_200
    blocks: int = 50
    section: int = 3_000

    def reset(self) -> None:
        """Accept as much as at the start."""
        vars(self).update(vars(Limits()))

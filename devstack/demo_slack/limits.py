"""How much Slack takes. What it takes has changed before, and differs from what it documents."""

from dataclasses import dataclass


@dataclass
class Limits:
    """The longest text and the longest blocks of a message, in characters, and how many blocks.

    Longer texts are refused (`msg_too_long`), although the documentation says that they are cut:
    https://docs.slack.dev/reference/methods/chat.postMessage/#truncating
    Of blocks, about 13,200 characters are taken: https://github.com/slackapi/bolt-js/issues/2509
    """

    text: int = 40_000
    blocks_text: int = 13_200
    blocks: int = 50
    section: int = 3_000

    def reset(self) -> None:
        """Take as much as at first."""
        vars(self).update(vars(Limits()))

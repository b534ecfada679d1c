"""The sizes that Slack accepts. They have changed before, and differ from its documentation."""

from dataclasses import dataclass


@dataclass
class Limits:
    """The longest text and blocks of a message, in characters, and the number of blocks.

    Slack refuses longer texts (`msg_too_long`), although its documentation says that it cuts them:
    https://docs.slack.dev/reference/methods/chat.postMessage/#truncating
    `chat.update` takes less: https://docs.slack.dev/reference/methods/chat.update#errors
    About 13,200 characters of blocks are accepted: https://github.com/slackapi/bolt-js/issues/2509
    """

    text: int = 40_000
    edited_text: int = 4_000
    blocks_text: int = 13_200
    blocks: int = 50
    section: int = 3_000

    def reset(self) -> None:
        """Return to the default limits."""
        vars(self).update(vars(Limits()))

"""Ask Slack for the address of a new connection, and connect to it."""

from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.sync.client import ClientConnection, connect

from slack_bot.payloads import parse, text
from slack_bot.signature import LARGEST_BODY
from workflows.slack.client import failure_of, web_client

TIMEOUT = 5
"""Seconds for each of the three steps: the address, the connection, and Slack's greeting."""
_PING = 10  # seconds; a connection that doesn't answer for this long counts as lost


class NotConnected(Exception):
    """There is no connection to Slack. The message is Slack's error code, or what went wrong."""

    def __init__(
        self, reason: str, *, is_refusal: bool = False, retry_after: int | None = None
    ) -> None:
        super().__init__(reason)
        self.is_refusal = is_refusal
        """Whether somebody has to change the token or the app's settings."""
        self.retry_after = retry_after
        """Seconds that Slack asked us to wait."""


def open_connection(app_token: str) -> ClientConnection:
    """Return a connection that Slack has greeted. Raises `NotConnected`.

    The address is good for one connection, so each attempt asks for a new one.
    """
    url = _address(app_token)
    try:
        connection = connect(
            url,
            open_timeout=TIMEOUT,
            ping_interval=_PING,
            ping_timeout=_PING,
            close_timeout=TIMEOUT,
            max_size=LARGEST_BODY,
        ).__enter__()
    except (OSError, InvalidHandshake, WebSocketException) as error:
        # Not the error's own words: they could contain the address, which is a secret.
        raise NotConnected(type(error).__name__) from None
    try:
        greeting = parse(connection.recv(timeout=TIMEOUT))
    except (TimeoutError, WebSocketException) as error:
        connection.close()
        raise NotConnected(type(error).__name__) from None
    if greeting.get("type") != "hello":
        connection.close()
        raise NotConnected(reason_in(greeting), is_refusal=True)
    return connection


def reason_in(message: dict[str, object]) -> str:
    """Return why Slack disconnects, such as `refresh_requested`."""
    reason = text(message.get("reason"), 40)
    return reason if reason in _REASONS else "unknown"


_REASONS = ("refresh_requested", "warning", "link_disabled", "too_many_websockets")


def _address(app_token: str) -> str:
    try:
        answer = web_client(timeout=TIMEOUT).apps_connections_open(app_token=app_token)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise NotConnected(
            failure.error, is_refusal=failure.is_permanent, retry_after=failure.retry_after
        ) from None
    return str(answer["url"])

"""One connection to Slack: it passes on envelopes, and sends their acknowledgements."""

import json
import threading
from collections.abc import Callable

import structlog
from slack_sdk.socket_mode.request import SocketModeRequest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from slack_bot.payloads import parse
from slack_bot.socket_mode import envelopes, metrics
from slack_bot.socket_mode.opening import reason_in

log = structlog.get_logger(__name__)


class Connection:
    """Reads until Slack closes the connection, or `close` is called.

    `on_envelope` gets each envelope and may block, which holds Slack back. `on_end` is called once,
    with the reason, as soon as another connection is needed. The old one may work for a while.
    """

    def __init__(
        self,
        websocket: ClientConnection,
        on_envelope: Callable[["Connection", SocketModeRequest], None],
        on_end: Callable[["Connection", str], None],
    ) -> None:
        self._websocket = websocket
        self._on_envelope = on_envelope
        self._on_end = on_end
        self._has_ended = False
        self._takes_more = True
        self._reader = threading.Thread(target=self._read, name="slack-socket", daemon=True)
        self._reader.start()

    @property
    def is_open(self) -> bool:
        """Whether it is still being read."""
        return self._reader.is_alive()

    def take_no_more(self) -> None:
        """Leave further envelopes unacknowledged, so that Slack sends them elsewhere."""
        self._takes_more = False

    def close(self) -> None:
        """Close the connection. It can't acknowledge any more envelopes."""
        self._has_ended = True
        self._websocket.close()

    def handle(self, request: SocketModeRequest) -> None:
        """Do what the envelope asks for, and acknowledge it if that succeeds."""
        response = envelopes.acknowledge(request)
        sent = response is not None and self._send(response.to_dict())
        kind = request.type if request.type in envelopes.KINDS else "unknown"
        outcome = "acknowledged" if sent else "unacknowledged"
        metrics.ENVELOPES.labels(kind=kind, outcome=outcome).inc()

    def _send(self, message: dict[str, object]) -> bool:
        try:
            self._websocket.send(json.dumps(message))
        except ConnectionClosed:
            log.warning("a connection ended before an envelope was acknowledged")
            return False
        return True

    def _read(self) -> None:
        reason = "lost"
        try:
            while True:
                self._take(self._websocket.recv())
        except ConnectionClosed as closed:
            reason = "closed" if closed.rcvd is not None else "lost"
        except Exception:
            log.exception("a connection to Slack could not be read")
            self._websocket.close()
        finally:
            self._end(reason)

    def _take(self, message: str | bytes) -> None:
        read = parse(message)
        if read.get("type") == "disconnect":
            self._end(reason_in(read))
            return
        request = envelopes.read(read)
        if request is not None and self._takes_more:
            self._on_envelope(self, request)

    def _end(self, reason: str) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._on_end(self, reason)

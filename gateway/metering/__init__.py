"""Reading a call's usage from the provider's answer while it passes through."""

from gateway.metering.chat import ChatReader
from gateway.metering.messages import MessagesReader
from gateway.metering.meter import Document, Meter, Stream
from gateway.metering.reading import Reader
from gateway.metering.responses import ResponsesReader

__all__ = ["Meter", "meter_for"]

_READERS: dict[str, type[Reader]] = {
    "messages": MessagesReader,
    "chat": ChatReader,
    "responses": ResponsesReader,
}


def meter_for(kind: str, *, stream: bool, hide_usage: bool) -> Meter:
    """Return a meter for one answer of an API. `hide_usage` removes the chunk with the usage."""
    reader = _READERS[kind]()
    return Stream(reader, hide_usage=hide_usage) if stream else Document(reader)

"""OpenAI's details about tokens. Both of its APIs have the same ones under different names.

https://platform.openai.com/docs/api-reference/responses/object and …/chat/object.
"""

import msgspec

from gateway.metering.reading import MaybeCount
from gateway.metering.usage import Usage


class CacheWrites(msgspec.Struct):
    """The tokens written to the cache, by their lifetime."""

    ttl_12h_tokens: MaybeCount = None


class InputDetails(msgspec.Struct):
    """Details of the input tokens."""

    cached_tokens: MaybeCount = None
    cache_write_tokens: MaybeCount = None
    cache_write_tokens_details: CacheWrites | None = None
    audio_tokens: MaybeCount = None
    image_tokens: MaybeCount = None


class OutputDetails(msgspec.Struct):
    """Details of the output tokens."""

    audio_tokens: MaybeCount = None


def usage_of(
    everything: int, output: int, read: InputDetails | None, made: OutputDetails | None
) -> Usage:
    """Return the usage for these input and output tokens. No part exceeds its whole."""
    read, made = read or InputDetails(), made or OutputDetails()
    lifetimes = read.cache_write_tokens_details or CacheWrites()
    cached = min(read.cached_tokens or 0, everything)
    long_lived = min(lifetimes.ttl_12h_tokens or 0, everything - cached)
    written = min(max(read.cache_write_tokens or long_lived, long_lived), everything - cached)
    return Usage(
        input=everything - cached - written,
        cache_read=cached,
        cache_write_5m=written - long_lived,
        cache_write_12h=long_lived,
        output=output,
        audio_input=min(read.audio_tokens or 0, everything),
        image_input=min(read.image_tokens or 0, everything),
        audio_output=min(made.audio_tokens or 0, output),
    )

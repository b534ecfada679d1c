"""What a provider reported about one call: tokens by kind, and tools that cost per use."""

import msgspec


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What a provider reported. No input token is counted in two of the five kinds of input.

    Audio and image tokens are included in these: `audio_input` and `image_input` in the input
    (cached or not), `audio_output` and `image_output` in the output. The tier, the speed (`fast`),
    the region and the model are None if they were not reported. `web_searches` counts searches,
    not the pages that were opened.
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    web_searches: int = 0
    file_searches: int = 0
    service_tier: str | None = None
    fast: bool | None = None
    inference_geo: str | None = None
    extra: "tuple[ExtraUsage, ...]" = ()
    model: str | None = None
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    web_fetches: int = 0
    code_executions: int = 0  # requests (Anthropic) or calls of the interpreter (OpenAI)
    image_generations: int = 0
    image_output: int = 0
    cache_write_12h: int = 0
    web_search_previews: int = 0

    def total(self) -> "Usage":
        """Return the usage with the tokens of `extra` added. It is for counting, not for prices."""
        if not self.extra:
            return self
        all_of_it = (self, *(each.usage for each in self.extra))
        counted = (
            "input", "cache_read", "cache_write_5m", "cache_write_1h", "cache_write_12h", "output",
        )  # fmt: skip
        sums = {name: sum(getattr(each, name) for each in all_of_it) for name in counted}
        return msgspec.structs.replace(self, extra=(), **sums)

    @property
    def all_input(self) -> int:
        """All input tokens, cached or not. Long-context prices depend on this."""
        return self.input + self.cache_read + self.cache_write

    @property
    def cache_write(self) -> int:
        """All tokens written to a cache, whatever their lifetime."""
        return self.cache_write_5m + self.cache_write_1h + self.cache_write_12h


class ExtraUsage(msgspec.Struct, frozen=True, gc=False):
    """Usage beside the message itself, priced separately. `model` is None for the same model."""

    model: str | None
    usage: Usage

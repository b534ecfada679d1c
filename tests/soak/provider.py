"""A model provider that sometimes fails, and records what it charges."""

import random
import re
import threading
from dataclasses import dataclass
from decimal import Decimal

from devstack.demo_model.anthropic_shape import pieces
from devstack.demo_model.script import Prompt, Reply, Script, Usage, count_tokens
from tests.fakes import FakeModel

# Dollars per token, in and out: https://docs.anthropic.com/en/docs/about-claude/pricing
PRICES = {
    "claude-sonnet-4-6": (Decimal(3) / 10**6, Decimal(15) / 10**6),
    "claude-haiku-4-5": (Decimal(1) / 10**6, Decimal(5) / 10**6),
}
STREAMED = "(streamed)"
DIRECT = re.compile(r"#d\d+")
ASKED = re.compile(r"#m\d+")
MOST_OF_A_RUN = 4096
MOST_OF_A_DIRECT_CALL = 16_000
_EVENTS_BEFORE_TEXT = 3


@dataclass(frozen=True)
class Charge:
    """The cost of one call in dollars, and the tags of the people's requests behind it."""

    tags: tuple[str, ...]
    dollars: Decimal
    answered: bool


class Book:
    """The calls of this provider, in order of arrival."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._charges: list[Charge] = []

    def write(self, charge: Charge) -> None:
        """Record one call."""
        with self._lock:
            self._charges.append(charge)

    def charges(self) -> list[Charge]:
        """Return the calls so far."""
        with self._lock:
            return list(self._charges)


class UnreliableScript(Script):
    """Answers most calls, each with a different number of output tokens, and lets some fail."""

    def __init__(self, seed: int, book: Book) -> None:
        super().__init__()
        self._random = random.Random(f"provider {seed}")
        self._book = book
        self._calls = threading.Lock()
        # No two answers cost the same, so a booking's cost identifies its call.
        self._of_runs = self._random.sample(range(200, MOST_OF_A_RUN), MOST_OF_A_RUN - 200)
        self._of_direct_calls = self._random.sample(
            range(MOST_OF_A_RUN, MOST_OF_A_DIRECT_CALL), 8000
        )
        self.calm = False

    def next(self, prompt: Prompt) -> Reply:
        """Choose a reply, and record what is charged for it."""
        with self._calls:
            return self._reply(prompt)

    def _reply(self, prompt: Prompt) -> Reply:
        direct = bool(DIRECT.search(prompt.last))
        tags = tuple(dict.fromkeys(ASKED.findall(prompt.last)))
        text = f"answer to {' '.join(tags) or 'a client'}: " + "word " * self._random.randrange(40)
        output = (self._of_direct_calls if direct else self._of_runs).pop()
        usage = Usage(input=prompt.tokens, output=output)
        mood = 1.0 if self.calm else self._random.random()
        delay = self._random.choice((0.05, 0.2, 0.5, 1.5))
        if mood < 0.04:
            self._book.write(Charge(tags, Decimal(0), answered=False))
            status, kind = self._random.choice(
                ((529, "overloaded_error"), (500, "api_error"), (429, "rate_limit_error"))
            )
            return Reply(error=kind, status=status, delay=delay)
        streamed = STREAMED in prompt.last
        if mood < 0.07:
            after = self._random.randrange(_EVENTS_BEFORE_TEXT, 8)
            if streamed:  # a broken stream is charged as far as it got, other answers completely
                said = "".join(pieces(text)[: after - _EVENTS_BEFORE_TEXT])
                charged = Usage(usage.input, count_tokens(said) if said else 1)
            else:
                charged = usage
            self._write(prompt, tags, charged, answered=False)
            return Reply(text, usage=usage, delay=delay, cut_after=after)
        if mood < 0.10:
            delay = self._random.uniform(5, 12)
        self._write(prompt, tags, usage, answered=True)
        return Reply(text, usage=usage, delay=delay, pause=self._random.choice((0, 0, 0.05, 0.2)))

    def _write(
        self, prompt: Prompt, tags: tuple[str, ...], usage: Usage, *, answered: bool
    ) -> None:
        price_in, price_out = PRICES[prompt.model]
        dollars = usage.input * price_in + usage.output * price_out
        self._book.write(Charge(tags, dollars, answered))


class Provider(FakeModel):
    """The provider as a server in this process, so that nothing kills it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.book = Book()
        self.answers = UnreliableScript(seed, self.book)
        self.model.script = self.answers

"""Tokens that somebody made up do no harm."""

import asyncio

from gateway.errors import Refusal
from gateway.resolver.credentials import MAX_QUESTIONS, MAX_STRANGERS, Credentials
from gateway.resolver.tollgate_api import TokenAnswer


class CountingApi:
    """Knows one token, and counts how many questions there were at once."""

    def __init__(self) -> None:
        self.asked = self.open = self.most = 0

    async def introspect(self, token: str, _group: str) -> TokenAnswer:
        self.asked += 1
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(0)
        self.open -= 1
        return TokenAnswer(active=token == "good", scope="x")


def test_made_up_tokens_neither_evict_known_ones_nor_flood_django() -> None:
    async def knock() -> None:
        api = CountingApi()
        known = Credentials(api, open_window=60)  # type: ignore[arg-type]
        await known.identify("good")
        strangers = [known.identify(f"made-up-{n}") for n in range(MAX_STRANGERS * 2)]
        answers = await asyncio.gather(*strangers, return_exceptions=True)
        assert {type(answer) for answer in answers} == {Refusal}
        assert api.most <= MAX_QUESTIONS
        asked = api.asked
        assert (await known.identify("good")).answer.active
        assert api.asked == asked, "it is still known"

    asyncio.run(knock())

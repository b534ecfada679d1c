"""Programs that call the gateway directly; some hang up in the middle."""

import asyncio
import itertools
import random
import time
from collections import Counter

import httpx

from tests.soak.provider import MOST_OF_A_DIRECT_CALL, STREAMED

MODEL = "claude-haiku-4-5"
AT_ONCE = 4


class Clients:
    """Several callers with one token; `statuses` counts the answers that they got."""

    def __init__(self, gateway_url: str, token: str, seed: int) -> None:
        self._random = random.Random(f"clients {seed}")
        self._numbers = itertools.count(1)
        self._http = httpx.AsyncClient(
            base_url=gateway_url,
            headers={"authorization": f"Bearer {token}", "anthropic-version": "2023-06-01"},
            timeout=httpx.Timeout(60, connect=5),
        )
        self.statuses: Counter[str] = Counter()

    async def call_until(self, end: float) -> None:
        """Call until the deadline, several calls at once."""
        async with self._http:
            await asyncio.gather(*(self._calls(end) for _ in range(AT_ONCE)))

    async def _calls(self, end: float) -> None:
        while time.monotonic() < end:
            try:
                status = await self._call()
            except httpx.HTTPError:
                status = "broken off"
            self.statuses[status] += 1
            refused = status not in ("200", "hung up")
            await asyncio.sleep(self._random.uniform(0.5, 1.5) if refused else 0.1)

    async def _call(self) -> str:
        streamed = self._random.random() < 0.5
        text = f"#d{next(self._numbers)} {STREAMED if streamed else ''}"
        body = {
            "model": MODEL,
            "max_tokens": MOST_OF_A_DIRECT_CALL,
            "stream": streamed,
            "messages": [{"role": "user", "content": text}],
        }
        hangs_up = self._random.random() < 0.15
        patience = self._random.uniform(0.05, 1.5) if hangs_up else 60
        try:
            async with asyncio.timeout(patience):
                answer = await self._http.post("/slack_app/v1/messages", json=body)
        except TimeoutError:
            return "hung up"
        return str(answer.status_code)

"""How long an answer about a token is valid, and when it is refreshed."""

import asyncio
import hashlib

import pytest

from gateway.errors import Refusal
from gateway.resolver.credentials import FRESH_SECONDS, REFRESH_SECONDS, RETRY_SECONDS, Credentials
from gateway.resolver.tollgate_api import TokenAnswer, TollgateUnavailable
from tests.conftest import wait_until
from tests.gateway.conftest import World


class SlowApi:
    """Answers when the test allows it. Knows every token until the test changes that."""

    def __init__(self) -> None:
        self.asked = 0
        self.let = asyncio.Event()
        self.let.set()
        self.active, self.away = True, False

    async def introspect(self, _token: str, _group: str) -> TokenAnswer:
        self.asked += 1
        await self.let.wait()
        if self.away:
            raise TollgateUnavailable("away")
        return TokenAnswer(active=self.active, scope="x")


async def aged(known: Credentials, seconds: float) -> None:
    """Age the cached answer about a token by this many seconds."""
    (await known.identify("token")).at -= seconds


def test_concurrent_calls_with_a_new_token_ask_django_once() -> None:
    async def show() -> None:
        api = SlowApi()
        known = Credentials(api, open_window=60)  # type: ignore[arg-type]
        await asyncio.gather(*(known.identify("token") for _ in range(50)))
        assert api.asked == 1

    asyncio.run(show())


def test_a_token_in_use_is_refreshed_in_the_background() -> None:
    async def use() -> None:
        api = SlowApi()
        known = Credentials(api, open_window=60)  # type: ignore[arg-type]
        await aged(known, REFRESH_SECONDS + 1)
        api.let.clear()
        async with asyncio.timeout(60):
            for _ in range(3):
                assert (await known.identify("token")).answer.active
                await asyncio.sleep(0)
        assert api.asked == 2
        api.active = False
        api.let.set()
        await asyncio.gather(*known._asking.values())
        with pytest.raises(Refusal):
            await known.identify("token")

    asyncio.run(use())


def test_an_answer_is_valid_for_a_minute_or_longer_while_django_is_away() -> None:
    async def use() -> None:
        api = SlowApi()
        known = Credentials(api, open_window=60)  # type: ignore[arg-type]
        await aged(known, FRESH_SECONDS + 1)
        api.away = True
        known.confirmed_at = asyncio.get_running_loop().time()
        assert (await known.identify("token")).answer.active
        known.confirmed_at -= 61
        with pytest.raises(Refusal) as refused:
            await known.identify("token")
        assert refused.value.status == 503
        api.away, api.active = False, False
        known._failed_at -= RETRY_SECONDS  # otherwise Django is not asked right after a failure
        with pytest.raises(Refusal) as refused:
            await known.identify("token")
        assert refused.value.status == 401

    asyncio.run(use())


def test_a_question_under_way_while_all_is_forgotten_is_asked_again() -> None:
    async def use(resets: int) -> None:
        api = SlowApi()
        known = Credentials(api, open_window=60)  # type: ignore[arg-type]
        api.let.clear()
        asking = asyncio.create_task(known.identify("token"))
        for asked in range(1, resets + 1):
            while api.asked < asked:  # noqa: ASYNC110 - the double counts and tells nobody
                await asyncio.sleep(0)
            known.forget_all()
            api.let.set()
            api.let = asyncio.Event()
        api.let.set()
        if resets == 1:
            assert (await asking).answer.active
            assert api.asked == 2
            return
        with pytest.raises(Refusal) as refused:
            await asking
        assert refused.value.status == 503, "it can be repeated; 401 would end the work"

    asyncio.run(use(1))
    asyncio.run(use(2))


def test_a_token_that_is_revoked_while_django_is_asked_about_it_is_refused() -> None:
    async def use() -> None:
        api = SlowApi()
        known = Credentials(api, open_window=60)  # type: ignore[arg-type]
        api.let.clear()
        asking = asyncio.create_task(known.identify("token"))
        while api.asked < 1:  # noqa: ASYNC110 - the double counts and tells nobody
            await asyncio.sleep(0)
        known.revoke(hashlib.sha256(b"token").hexdigest(), 1)
        api.let.set()
        with pytest.raises(Refusal) as refused:
            await asking
        assert refused.value.status == 401

    asyncio.run(use())


def test_an_old_quota_answer_is_refreshed_in_the_background(world: World) -> None:
    project = world.tollgate.project(credits=100)
    token = world.tollgate.token(project)
    assert world.post(token).status_code == 200
    key = f"tollgate:project:{project.id}:ai_credits"

    def up_to_date() -> bool:
        """Return whether the gateway has asked about all changes of the project."""
        heard = int(world.redis.hget("tollgate:feed", "version"))
        return heard >= world.tollgate.version and not world.redis.hexists(key, "stale_since")

    wait_until(up_to_date, what="the project's making being known")
    asked = world.tollgate.asked_about[project.id]
    assert world.post(token).status_code == 200
    assert world.tollgate.asked_about[project.id] == asked
    world.redis.hincrby(key, "asked_at", -301_000)
    assert world.post(token).status_code == 200
    wait_until(lambda: world.tollgate.asked_about[project.id] > asked, what="it being asked again")

"""The watch over a call: moving deadlines, and callers that leave."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.network import interruptions as watch_module
from gateway.network.interruptions import Watches


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "TICK_SECONDS", 0.005)


async def forever() -> None:
    await asyncio.Event().wait()


class Connection:
    """A connection whose caller may leave."""

    departed: Callable[[], None] | None = None

    def tell(self, departed: Callable[[], None] | None) -> None:
        self.departed = departed

    def leave(self) -> None:
        assert self.departed is not None
        self.departed()


async def test_a_deadline_interrupts_the_call() -> None:
    watch = Watches().begin(0.01)
    with pytest.raises(asyncio.CancelledError):
        await forever()
    assert watch.claim()
    assert (watch.passed, watch.left) == (True, False)
    await asyncio.sleep(0)  # the cancellation was undone


async def test_a_moved_deadline_interrupts_nothing() -> None:
    watch = Watches().begin(0.02)
    for _ in range(10):
        watch.expect_within(30)
        await asyncio.sleep(0.005)
    watch.close()
    assert not watch.passed


async def test_a_caller_who_leaves_interrupts_at_once() -> None:
    watch, connection = Watches().begin(30), Connection()
    watch.listen(connection.tell, 0)
    connection.leave()
    with pytest.raises(asyncio.CancelledError):
        await forever()
    assert watch.claim()
    assert watch.left


async def test_a_call_may_go_on_only_for_a_while_after_its_caller_left() -> None:
    watch, connection = Watches().begin(30), Connection()
    watch.listen(connection.tell, 0.02)
    connection.leave()

    async def read_on() -> None:
        while True:
            watch.expect_within(30)  # the provider goes on
            await asyncio.sleep(0.001)

    with pytest.raises(asyncio.CancelledError):
        await read_on()
    assert watch.claim()
    assert watch.left


async def test_a_finished_call_ignores_a_leaving_caller() -> None:
    watch, connection = Watches().begin(30), Connection()
    watch.listen(connection.tell, 0)
    departed = connection.departed
    watch.close()
    assert connection.departed is None
    departed()  # at the same moment
    await asyncio.sleep(0)
    assert not watch.left


async def test_a_cancellation_from_elsewhere_is_not_claimed() -> None:
    watch = Watches().begin(30)
    asyncio.current_task().cancel()
    with pytest.raises(asyncio.CancelledError):
        await forever()
    assert not watch.claim()
    asyncio.current_task().uncancel()
    watch.close()

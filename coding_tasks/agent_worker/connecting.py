"""Waiting for a Temporal server that is not up yet, as all workers do when they start."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import chain, repeat

import structlog
from temporalio.client import Client

log = structlog.get_logger(__name__)


async def connect_or_stop(
    connect: Callable[[], Awaitable[Client]], stop: asyncio.Event
) -> Client | None:
    """Return a client once Temporal is up, or None if `stop` is set first.

    `connect` raises `RuntimeError` as long as the server cannot be reached.
    """
    waits = chain((0.2, 0.5, 1.0, 2.0), repeat(5.0))
    while not stop.is_set():
        try:
            return await connect()
        except RuntimeError as error:
            log.warning("waiting for Temporal", error=str(error)[:200])
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), next(waits))
    return None

"""What each agent worker can run. Workers report it in the exchange, for the admin and checks."""

import asyncio
import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from coding_tasks.agent_worker.exchange import Exchange
from coding_tasks.agents.description import CodingAgent
from coding_tasks.sandbox.interface import Sandbox

log = structlog.get_logger(__name__)

EVERY = 20.0
"""Seconds between two reports of a worker."""
_UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9.-]")
_MOST_TEXT = 300
"""Characters of a reason."""
_MOST_AGENTS = 50


@dataclass(frozen=True)
class Readiness:
    """What one agent worker can run. A reason is empty if nothing is missing."""

    worker: str
    sandbox: str
    """Why it has no sandbox."""
    agents: Mapping[str, str] = field(default_factory=dict)
    """Why it cannot run each agent."""

    @classmethod
    def from_json(cls, worker: str, value: Any) -> "Readiness":
        """Return what a worker wrote, shortened. Raises `ValueError` if it is malformed."""
        if not isinstance(value, dict) or not isinstance(agents := value.get("agents"), dict):
            raise ValueError("not a report")
        shown = list(agents.items())[:_MOST_AGENTS]
        return cls(
            worker=worker,
            sandbox=str(value.get("sandbox", ""))[:_MOST_TEXT],
            agents={name[:30]: str(reason)[:_MOST_TEXT] for name, reason in shown},
        )

    @property
    def missing(self) -> dict[str, str]:
        """Return the agents that cannot be run, and why."""
        return {name: reason for name, reason in self.agents.items() if reason}


def find_out(
    sandbox: Sandbox, agents: Mapping[str, CodingAgent], installations: Path
) -> dict[str, Any]:
    """Return what this machine can run, as JSON. This blocks for as long as a probe takes."""
    return {
        "sandbox": sandbox.why_missing() or "",
        "agents": {name: agent.why_missing(installations) or "" for name, agent in agents.items()},
    }


def workers(exchange: Exchange) -> list[Readiness]:
    """Return the latest report of each worker that has reported lately, sorted by name."""
    found = []
    for worker, value in exchange.reports(younger_than=3 * EVERY):
        with suppress(ValueError):
            found.append(Readiness.from_json(worker, value))
    return found


async def report(
    exchange: Exchange, sandbox: Sandbox, agents: Mapping[str, CodingAgent], installations: Path
) -> None:
    """Report until this is cancelled, then withdraw the report."""
    name = _UNSAFE_IN_NAMES.sub("-", f"{platform.node()}-{os.getpid()}")[:100]
    try:
        while True:
            now = await asyncio.to_thread(find_out, sandbox, agents, installations)
            try:
                exchange.put_report(name, now)
            except OSError as error:
                log.warning("the exchange cannot be written to", error=str(error))
            await asyncio.sleep(EVERY)
    finally:
        exchange.withdraw_report(name)

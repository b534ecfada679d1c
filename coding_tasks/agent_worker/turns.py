"""One turn of an agent: open the sandbox, run the command, follow it, and save what it made."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from coding_tasks.agent_worker.exchange import MOST_EVENTS, MOST_HOME, MOST_PATCH, Exchange
from coding_tasks.agent_worker.job import (
    AGENT_MISSING,
    MOST_OUTPUT_BYTES,
    MOST_OUTPUT_FILES,
    SANDBOX_MISSING,
    AgentJob,
    Ending,
    Kept,
    TurnEnded,
    TurnRef,
    TurnResult,
)
from coding_tasks.agents.description import Budget, CodingAgent, Parser, Turn
from coding_tasks.agents.events import Event, clean, mask, to_json
from coding_tasks.agents.progress import Progress
from coding_tasks.sandbox.command import (
    GATEWAY_INSIDE,
    HOME_INSIDE,
    INPUT_INSIDE,
    OUTPUT_NAME,
    Command,
)
from coding_tasks.sandbox.errors import ExportFailed, TooBig
from coding_tasks.sandbox.interface import (
    Door,
    Ended,
    Limits,
    Process,
    Refusal,
    Refusals,
    Sandbox,
    Workspace,
)

log = structlog.get_logger(__name__)

BEAT = 2.0
"""Seconds between heartbeats. Their answers tell the worker that a turn was cancelled."""
GRACE = 60
"""Seconds that an agent gets beyond its own budget before the sandbox ends it."""
_RESTORE_SECONDS = 60
_GIT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME_INSIDE}
_TELLING = ("x-tollgate-reason", "x-should-retry", "retry-after")


@dataclass(frozen=True)
class TurnActivities:
    """The agent worker's one activity, with the sandbox and the agents that it can run."""

    sandbox: Sandbox
    agents: Mapping[str, CodingAgent]
    exchange: Exchange
    installations: Path
    """The folder of the agents that were installed on this machine."""
    limits: Limits = field(default_factory=Limits)

    @activity.defn(name="run_turn")
    async def run_turn(self, ref: TurnRef) -> TurnEnded:
        """Run the turn that the exchange describes, and leave its result there.

        Fails for good with `AGENT_MISSING` or `SANDBOX_MISSING` if this machine can't run it. If
        the activity is cancelled, the door closes and every process of the turn ends.
        """
        try:
            return await self._run_turn(ref)
        except ApplicationError:
            raise
        except Exception as error:
            # Its message may quote the agent or the repository, so it must not enter the history.
            log.exception("a turn failed", run=ref.run_id)
            name = type(error).__name__
            raise ApplicationError(f"{name}: see the agent worker's log", type=name) from None

    async def _run_turn(self, ref: TurnRef) -> TurnEnded:
        job = self.exchange.job(ref.run_id)
        agent = self._agent(job.agent)
        name = _name_of(activity.info())
        attempt = self.exchange.attempt(ref.run_id, name)
        attempt.begin()
        progress = Progress()
        async with _heartbeats(progress):
            repository = Path(job.repository)
            tree = Path(job.tree)
            async with (
                _input_files(self.exchange, ref.run_id, job, self.sandbox.owner) as input_files,
                self.sandbox.open(
                    tree,
                    repository=repository,
                    mounts={**agent.mounts(self.installations), **input_files},
                ) as workspace,
            ):
                job = await _restored(workspace, job)
                refusals = Refusals()
                door = Door(job.gateway_url, job.product, refusals, job.token)
                with attempt.write_events() as file:
                    transcript = _Transcript(file, job.token)
                    ended = await self._run(workspace, agent, job, door, progress, transcript)
                patch, kept = await _export(workspace, job.commit, repository / "index")
                home = await _save_home(workspace, agent)
                output = await _output(workspace)
        result = _result(progress, ended, refusals.last, kept)
        if home is None:
            result = replace(result, session="")  # there is nothing to go on with
        await asyncio.to_thread(attempt.put, result, patch, home or b"", output)
        return TurnEnded(name)

    def _agent(self, name: str) -> CodingAgent:
        """Return the agent. Raises a failure that says why it, or the sandbox, is missing."""
        if reason := self.sandbox.why_missing():
            log.error("agents cannot run here", reason=reason)
            raise ApplicationError("no sandbox", type=SANDBOX_MISSING, non_retryable=True)
        agent = self.agents.get(name)
        reason = agent.why_missing(self.installations) if agent else "There is no such agent."
        if agent is None or reason:
            log.error("an agent is missing", agent=name, reason=reason)
            raise ApplicationError("no such agent", type=AGENT_MISSING, non_retryable=True)
        return agent

    async def _run(
        self,
        workspace: Workspace,
        agent: CodingAgent,
        job: AgentJob,
        door: Door,
        progress: Progress,
        transcript: "_Transcript",
    ) -> Ended:
        turn = Turn(
            prompt=job.prompt,
            model=job.model,
            base_url=f"{GATEWAY_INSIDE}/{job.product}",
            token=job.token,
            trace_id=job.trace_id,
            session=job.session if agent.resumes else None,
            budget=Budget(job.steps, job.tokens, job.seconds),
            call_key=job.call_key,
            images=[f"{INPUT_INSIDE}/{name}" for name in job.images],
        )
        limits = replace(self.limits, seconds=min(self.limits.seconds, job.seconds + GRACE))
        async with workspace.start(agent.command(turn), limits, door) as process:
            await _follow(process, agent.parser(), progress, transcript)
            return await process.wait()


class _Transcript:
    """Writes events as lines, without the run's token, up to a total size."""

    def __init__(self, file: BinaryIO, token: str) -> None:
        self._file = file
        self._token = token
        self._left = MOST_EVENTS

    def add(self, event: Event) -> None:
        line = json.dumps(to_json(mask(event, [self._token]))).encode() + b"\n"
        self._left -= len(line)
        if self._left >= 0:
            self._file.write(line)


async def _follow(
    process: Process, parser: Parser, progress: Progress, transcript: _Transcript
) -> None:
    """Read the output to its end."""
    async for line in process.lines():
        if line.stream != "stdout":
            log.debug("an agent wrote to standard error", text=clean(line.text, 500))
            continue
        for event in parser.events(line.data):
            progress.add(event)
            transcript.add(event)
    for event in parser.end():
        progress.add(event)
        transcript.add(event)


def _name_of(info: activity.Info) -> str:
    """Return a name that no other attempt has, so that one believed dead writes elsewhere."""
    return f"attempt-{info.workflow_run_id}-{info.activity_id}-{info.attempt}"


@asynccontextmanager
async def _input_files(
    exchange: Exchange, run_id: str, job: AgentJob, owner: tuple[int, int]
) -> AsyncIterator[dict[str, Path]]:
    """Provide what the sandbox must mount, read-only, for the files that came with the request.

    They are copied, because the sandbox's user cannot reach the exchange.
    """
    if not job.files:
        yield {}
        return
    with TemporaryDirectory(prefix="tollgate-input-") as folder:
        await asyncio.to_thread(_copy_input, exchange, run_id, job, Path(folder), owner)
        yield {INPUT_INSIDE: Path(folder)}


def _copy_input(
    exchange: Exchange, run_id: str, job: AgentJob, folder: Path, owner: tuple[int, int]
) -> None:
    for name in job.files:
        (folder / name).write_bytes(exchange.input_file(run_id, name))
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, *owner)


async def _restored(workspace: Workspace, job: AgentJob) -> AgentJob:
    """Restore the conversation, and what an earlier attempt at the turn did; return the job.

    If the conversation cannot be restored, the agent begins a new one.
    """
    if job.home:
        try:
            await workspace.restore_home(await asyncio.to_thread(Path(job.home).read_bytes))
        except (ExportFailed, OSError) as error:
            log.warning("a conversation could not be restored", error=str(error))
            job = replace(job, session=None)
    if job.patch:
        patch = await asyncio.to_thread(Path(job.patch).read_bytes)
        apply = Command(("git", "apply", "--binary", "--whitespace=nowarn"), _GIT, patch)
        async with workspace.start(apply, Limits(seconds=_RESTORE_SECONDS)) as process:
            ended = await process.wait()
        if ended.status != 0:
            log.warning("unfinished work could not be restored", status=ended.status)
    return job


async def _export(workspace: Workspace, commit: str, index: Path) -> tuple[bytes, Kept]:
    """Return the change as a patch, and how much of it. A lost change must not lose the answer."""
    try:
        change = await workspace.export(commit, index=index, most_bytes=MOST_PATCH)
    except TooBig:
        return b"", Kept.TOO_BIG
    except ExportFailed as error:
        log.warning("a change could not be exported", error=str(error))
        return b"", Kept.LOST
    return change.patch, Kept.PARTLY if change.incomplete else Kept.WHOLE


async def _save_home(workspace: Workspace, agent: CodingAgent) -> bytes | None:
    """Return an archive of the conversation, or None if it cannot be saved."""
    try:
        return await workspace.save_home(agent.session_directories, MOST_HOME)
    except ExportFailed as error:
        log.warning("a conversation could not be saved", error=str(error))
        return None


async def _output(workspace: Workspace) -> bytes:
    """Return the files that the agent left for people. Losing them must not lose the answer."""
    try:
        return await workspace.read_folder(OUTPUT_NAME, MOST_OUTPUT_FILES, MOST_OUTPUT_BYTES)
    except ExportFailed as error:
        log.warning("an agent's files could not be read", error=str(error))
        return b""


def _result(progress: Progress, ended: Ended, refused: Refusal | None, kept: Kept) -> TurnResult:
    if ended.limit is not None:
        ending, detail = Ending.LIMIT, str(ended.limit)
    elif progress.answer:
        ending, detail = Ending.ANSWERED, ""
    else:
        ending, detail = Ending.SILENT, progress.failure or ""
    return TurnResult(
        ending=ending,
        answer=progress.answer or "",
        complete=progress.complete and ended.status == 0,
        detail=detail[:500],
        session=progress.session or "",
        steps=progress.steps,
        said=progress.said,
        refusal=_told(refused) if refused else None,
        kept=kept,
    )


def _told(refused: Refusal) -> dict[str, Any]:
    """Return the refusal for the result, without what the failure doesn't depend on."""
    try:
        body = json.loads(refused.body)
    except (ValueError, RecursionError):
        body = None
    details = body.get("error") if isinstance(body, dict) else None
    headers = {name: refused.headers[name] for name in _TELLING if name in refused.headers}
    return {"status": refused.status, "headers": headers, "details": details}


@asynccontextmanager
async def _heartbeats(progress: Progress) -> AsyncIterator[None]:
    """Send Temporal regular heartbeats with the number of steps that the turn has taken.

    What the agent does is left out, because Temporal's history cannot be erased.
    """

    async def beat() -> None:
        while True:
            activity.heartbeat(progress.steps)
            await asyncio.sleep(BEAT)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating

"""The input of an API task's workflow: plain data that is safe to keep in its history."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ApiTaskInput:
    """The task to work on, and how long and how often its runs wait: see `MentionInput`."""

    task_id: str
    pause_seconds: float = 7 * 24 * 3600
    recheck_seconds: float = 5
    attempts: int = 6
    outage_seconds: float = 3600
    agent_worker_seconds: float = 120
    lost_answers: int = 5


@dataclass(frozen=True)
class ApiTaskRef:
    """Names a task's row."""

    task_id: str


@dataclass(frozen=True)
class NextRun:
    """The run to perform. If the id is empty, there is none, and the task is closed."""

    run_id: str = ""


@dataclass(frozen=True)
class GivenUpTask:
    """A task to give up, and why."""

    task_id: str
    why: str

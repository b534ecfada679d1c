"""What is said about a person's tasks and a team's credits, as Slack mrkdwn."""

from datetime import datetime

from billing.credits import display
from workflows.home.own_tasks import OwnTask
from workflows.wording import elapsed, escape, link

_LONGEST_TITLE = 80
_STATES = {
    "queued": "about to start",
    "running": "working",
    "paused": "paused until there are credits",
    "active": "answered",
    "done": "done",
    "failed": "failed",
    "stopped": "stopped",
}


def at_work_title() -> str:
    """Introduce the tasks that work for a person."""
    return "*Working for you*"


def nothing_at_work() -> str:
    """Say that nothing works for a person."""
    return "Nothing is running for you."


def others_at_work(count: int) -> str:
    """Say how much works for others in the same project."""
    tasks = "1 task is" if count == 1 else f"{count:,} tasks are"
    return f"{tasks} running for others in this project."


def task_line(task: OwnTask, now: datetime) -> str:
    """Return a task as a line of a list: its title, its state and what it cost so far."""
    return f"• {task_title(task)}: {task_state(task, now)}"


def task_title(task: OwnTask) -> str:
    """Return the title of a task, which leads to its thread."""
    title = " ".join(task.title.split()) or "(no title)"
    short = title if len(title) <= _LONGEST_TITLE else f"{title[:_LONGEST_TITLE]}…"
    # A label of a link ends at a ">" or a "|", even if they are escaped as Slack asks.
    label = short.replace("|", "¦").replace("\n", " ")
    return link(task.permalink, label) if task.permalink else escape(short)


def task_state(task: OwnTask, now: datetime) -> str:
    """Return the state of a task and what it cost, such as "working for 3 min, 1.20 credits"."""
    state = _STATES.get(task.state, task.state)
    if task.state == "running" and task.since is not None:
        state = f"{state} for {elapsed(max(0, int((now - task.since).total_seconds())))}"
    return f"{state}, {escape(display(task.credits_micro))} credits"

"""Sentences about a person's tasks and a team's credits, as Slack mrkdwn."""

from dataclasses import replace
from datetime import datetime

from billing.credits import display
from billing.reports.ranking import Ranked
from quota.account_state import AccountState
from quota.gate import Verdict
from workflows import denials
from workflows.home.own_tasks import OwnTask
from workflows.wording import NEAR_THE_LIMIT, elapsed, escape, link, person, work_state

WORK = "Your work"
RECENT = "*Your last tasks*"
CREDITS = "Your team's credits"
BY_DAY = "*Credits by day*, in UTC"
SPENDERS = "*Who used most*"
TOP_UP = "Top up"
TOP_UP_ACTION = "tollgate_top_up"

_LONGEST_TITLE = 80


def at_work_title() -> str:
    """Introduce the tasks that are running for a person."""
    return "*Working for you*"


def nothing_at_work() -> str:
    """Say that nothing is running for a person."""
    return "Nothing is running for you."


def others_at_work(count: int) -> str:
    """Say how many tasks are running for others in the same project."""
    tasks = "1 task is" if count == 1 else f"{count:,} tasks are"
    return f"{tasks} running for others in this project."


def task_line(task: OwnTask, now: datetime) -> str:
    """Return a task as a line of a list: its title, its state and what it cost so far."""
    return f"• {task_title(task)}: {task_state(task, now)}"


def task_title(task: OwnTask) -> str:
    """Return the title of a task, which leads to its thread."""
    title = " ".join(task.title.split()) or "(no title)"
    short = title if len(title) <= _LONGEST_TITLE else f"{title[:_LONGEST_TITLE]}…"
    # Slack ends the label of a link at a ">" or a "|", even if it is escaped as documented.
    label = short.replace("|", "¦")
    return link(task.permalink, label) if task.permalink else escape(short)


def task_state(task: OwnTask, now: datetime) -> str:
    """Return the state of a task and what it cost, such as "working for 3 min, 1.20 credits"."""
    state = work_state(task.state)
    if task.state == "running" and task.since is not None:
        state = f"{state} for {elapsed(max(0, int((now - task.since).total_seconds())))}"
    return f"{state}, {escape(display(task.credits_micro))} credits"


def amount(micro: int) -> str:
    """Return credits with two decimals, escaped."""
    return escape(display(micro))


def how_to_start(bot_name: str) -> str:
    """Say that nothing runs, and how to start something."""
    return (
        f"{nothing_at_work()} To start, mention {escape(bot_name)} in a channel, or write to me "
        "under “Messages”, and say what to do."
    )


def share_used(used_micro: int, left_micro: int, bar: str) -> str:
    """Say how much of the period's credits is used and left. `bar` shows the same."""
    had = used_micro + left_micro
    percent = _percent(used_micro, had) if had > 0 else "100"
    return f"`{bar}` {percent} % used\n*{amount(left_micro)}* of {amount(had)} credits are left."


def no_limit() -> str:
    """Say that nothing limits the team."""
    return "Your team's credits have no limit."


def state_and_reset(verdict: Verdict, account: AccountState | None) -> list[str]:
    """Return what to say about a team that may work: a warning, the person's cap, the reset."""
    said = [NEAR_THE_LIMIT[verdict.state]] if verdict.state in NEAR_THE_LIMIT else []
    left = verdict.remaining_micro
    team_left = None if account is None else account.remaining_micro
    if left is not None and (team_left is None or left < team_left):
        said.append(f"You can use {amount(left)} of them.")
    said += resets(verdict)
    return [" ".join(said)] if said else []


def refused(verdict: Verdict) -> str:
    """Return the denial, with the time of the reset in the reader's own time zone."""
    return " ".join([denials.text(replace(verdict, resets_at=None)), *resets(verdict)])


def resets(verdict: Verdict) -> list[str]:
    """Return the sentence that says when the credits reset, or nothing without such a time."""
    return [] if verdict.resets_at is None else [f"They reset on {moment(verdict.resets_at)}."]


def moment(at: datetime) -> str:
    """Return a day and time that Slack shows in the reader's own time zone."""
    return f"<!date^{int(at.timestamp())}^{{date_long}} at {{time}}|{at:%Y-%m-%d %H:%M} UTC>"


def own_share(own_micro: int, team_micro: int, since: datetime) -> str:
    """Say what the person used, and their share of what the team used."""
    share = f" ({_percent(own_micro, team_micro)} %)" if team_micro > 0 else ""
    used = f"you have used {amount(own_micro)} of the team's {amount(team_micro)} credits{share}"
    return f"Since {since:%Y-%m-%d}, {used}."


def _percent(part: int, whole: int) -> str:
    """Return the percentage, rounded down, or an escaped "<1" for less than one percent."""
    percent = part * 100 // whole
    return escape("<1") if part > 0 and percent == 0 else str(percent)


def spender(row: Ranked) -> str:
    """Return a line for one of those who used most."""
    kind, _, slack_id = str(row.key or "").rpartition(":")
    name = person(slack_id) if kind.startswith("slack:") else escape(str(row.key or "nobody named"))
    return f"• {name}: {amount(row.used.credits_micro)} credits ({row.percent} %)"


def request_waits() -> str:
    """Say that the person's request for credits is open."""
    return "You have asked for credits. As soon as there are some, I will start by myself."


def as_of(now: datetime) -> str:
    """Say how old the tab is."""
    return f"As of {moment(now)}. Open this tab again to refresh it."

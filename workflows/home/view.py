"""Pure functions that make the Home tab's Block Kit. https://docs.slack.dev/surfaces/app-home"""

from collections.abc import Iterable, Mapping
from datetime import date

from django.conf import settings

from billing.reports.sums import Used
from workflows import wording
from workflows.credit_requests import forms
from workflows.home import words
from workflows.home.contents import Home
from workflows.home.own_tasks import OwnTask
from workflows.progress import stop_button
from workflows.slack.block_kit import Block, button, buttons, context, divider, header, section

_SECTION = 2_900  # characters; Slack allows 3,000
_DAYS = 14
_DAY_CELLS = 12
_SHARE_CELLS = 20
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def home_view(home: Home, said: str = "") -> Block:
    """Return the view. `said` answers the person's last click."""
    blocks = [section(said), divider()] if said else []
    blocks += [*_work(home), divider(), *_credits(home), *_usage(home), *_actions(home)]
    blocks.append(context(words.as_of(home.now)))
    return _view(blocks)


def refusal_view(why: str) -> Block:
    """Return the view for somebody who may not use the bot."""
    return _view([section(why)])


def _view(blocks: list[Block]) -> Block:
    return {"type": "home", "blocks": blocks}


def _work(home: Home) -> Iterable[Block]:
    yield header(words.WORK)
    if not home.tasks.at_work:
        yield section(words.how_to_start(settings.BOT_NAME))
    for task in home.tasks.at_work:
        yield section(
            f"*{words.task_title(task)}*\n{words.task_state(task, home.now)}",
            accessory=_stop(task),
        )
    if home.others_at_work:
        yield context(words.others_at_work(home.others_at_work))
    if home.tasks.recent:
        lines = [words.task_line(task, home.now) for task in home.tasks.recent]
        yield from _sections([words.RECENT, *lines])


def _stop(task: OwnTask) -> Block:
    value = stop_button.value_for(str(task.run_id))
    return button(wording.stop_button(), stop_button.ACTION_ID, value, style="danger")


def _credits(home: Home) -> Iterable[Block]:
    yield header(words.CREDITS)
    if home.verdict is None:
        yield section(wording.credits_unknown())
        return
    account = home.account
    if account is not None and account.remaining_micro is not None:
        used, left = account.usage_micro or 0, account.remaining_micro
        yield section(words.share_used(used, left, _bar(used, used + left, _SHARE_CELLS)))
    elif not home.verdict.limited:
        yield section(words.no_limit())
    if home.verdict.limited:
        yield section(words.refused(home.verdict))
    else:
        yield from map(section, words.state_and_reset(home.verdict, account))


def _usage(home: Home) -> Iterable[Block]:
    own, team = home.own.credits_micro, home.team.credits_micro
    yield section(words.own_share(own, team, home.since))
    if team > 0:
        yield section(f"{words.BY_DAY}\n```{_chart(home.days)}```")
    if home.spenders is not None and home.spenders.top:
        lines = [words.spender(row) for row in home.spenders.top]
        yield from _sections([words.SPENDERS, *lines])


def _actions(home: Home) -> Iterable[Block]:
    offered = []
    if home.ask_for is not None:
        offered.append(forms.ask_button(home.ask_for, style="primary"))
    if home.spenders is not None:  # others can't do anything there
        offered.append(
            button(words.TOP_UP, words.TOP_UP_ACTION, "1") | {"url": settings.BILLING_URL}
        )
    if home.waits:
        yield context(words.request_waits())
    if offered:
        yield buttons(*offered)


def _chart(days: Mapping[date, Used]) -> str:
    """Return a bar for each of the last days, as text of one width."""
    last = list(days.items())[-_DAYS:]
    most = max((used.credits_micro for _, used in last), default=0)
    amounts = [words.amount(used.credits_micro) for _, used in last]
    width = max(map(len, amounts), default=0)
    return "\n".join(
        f"{day:%a %d} {_fine_bar(used.credits_micro, most, _DAY_CELLS)} {amount:>{width}}"
        for (day, used), amount in zip(last, amounts, strict=True)
    )


def _bar(part: int, whole: int, cells: int) -> str:
    """Return a bar of whole cells."""
    filled = _filled(part, whole, cells)
    return "█" * filled + "░" * (cells - filled)


def _fine_bar(part: int, whole: int, cells: int) -> str:
    """Return a bar whose last cell is filled by eighths."""
    full, rest = divmod(_filled(part, whole, cells * 8), 8)
    return f"{'█' * full}{_EIGHTHS[rest]}".ljust(cells)


def _filled(part: int, whole: int, cells: int) -> int:
    """Return how many cells to fill, rounded to the nearest one. Fill all only for the whole."""
    if part <= 0 or whole <= 0:
        return 0
    return cells if part >= whole else min((2 * part * cells + whole) // (2 * whole), cells - 1)


def _sections(lines: list[str]) -> Iterable[Block]:
    """Yield the lines in as few sections as Slack's limit allows."""
    text = ""
    for line in lines:
        if text and len(text) + len(line) >= _SECTION:
            yield section(text)
            text = ""
        text = f"{text}\n{line}" if text else line[:_SECTION]
    yield section(text)

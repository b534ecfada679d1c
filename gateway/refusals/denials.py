"""The words of a refusal for lack of credits. Callers see them, so they contain no secrets."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from gateway.errors import Refusal
from gateway.refusals.reasons import Reason
from gateway.resolver.tollgate_api import ResourceAnswer
from gateway.settings import MICRO

REASON = "billable_credits"
_NAMES = {"ai_credits": "{bot_name} AI credits"}
_USED = "Your team has used its monthly {name}."
_FIRST: dict[str, str] = {
    Reason.LIMIT_REACHED: _USED,
    # Limits written into the limited set directly, mostly by another billing system.
    Reason.SET_BY_HAND: _USED,
    Reason.INSUFFICIENT_REMAINING: "Your team has too few {name} left to start.",
    Reason.PROJECT_CAP_REACHED: "This project has used its share of your team's {name}.",
    Reason.USER_CAP_REACHED: "You have used your share of your team's {name}.",
    Reason.ORGANIZATION_INACTIVE: (
        "Your team's {name} are switched off: its organization is not active."
    ),
}
# What to do if a top-up does not help.
_ADVICE: dict[str, str] = {
    Reason.PROJECT_CAP_REACHED: "Ask an administrator of your team to raise the project's share.",
    Reason.USER_CAP_REACHED: "Ask an administrator of your team to raise your share.",
}
_OTHERWISE = "Your team cannot use its {name} at the moment."


def denial(
    answer: bytes, resource: str, bot_name: str, billing_url: str, cause: str | None = None
) -> Refusal:
    """Return the refusal for a limited team. `answer` is Django's answer from Redis.

    `cause` replaces the reason in the answer if a project or a user, not the team, used up its
    share.
    """
    found = msgspec.json.decode(answer, type=ResourceAnswer)
    cause = cause or found.reason
    first = _FIRST.get(cause or "", _OTHERWISE).format(name=credits_name(resource, bot_name))
    return _refusal([first, *_reset(found)], found.resets_at, billing_url, cause)


def too_little(
    answer: bytes,
    resource: str,
    bot_name: str,
    billing_url: str,
    *,
    needed_micro: int,
    remaining_micro: int,
    held_micro: int,
    cause: str,
) -> Refusal:
    """Return the refusal of a call that may cost more than is left. `cause` names the limit.

    If other calls hold the credits that this one needs, the refusal says to try again soon.
    """
    found = msgspec.json.decode(answer, type=ResourceAnswer)
    name = credits_name(resource, bot_name)
    waiting_helps = remaining_micro + held_micro >= needed_micro
    sentences = [
        f"This call may cost up to {_credits(needed_micro)} {name}; "
        f"{_credits(max(remaining_micro, 0))} are left"
        + (" while other calls are under way." if waiting_helps else ".")
    ]
    if not waiting_helps:
        sentences += _reset(found)
    refusal = _refusal(
        sentences,
        found.resets_at,
        billing_url,
        cause,
        needed=_credits(needed_micro),
        remaining=_credits(max(remaining_micro, 0)),
    )
    if waiting_helps:
        _let_wait(refusal, sentences[0])
    return refusal


def run_cap_reached(
    answer: bytes,
    resource: str,
    bot_name: str,
    own_cap: Decimal | None,
    accepted_micro: int | None,
    *,
    needed_micro: int,
    remaining_micro: int,
    held_micro: int,
) -> Refusal:
    """Return the refusal for a task run that has used up its cap.

    The cause names the owner of the cap: the team can raise its own, but neither the gateway's
    `own_cap` (in credits) nor what was accepted for the run (`accepted_micro`). If other calls of
    the run hold the credits that this one needs, such as those of an attempt that was killed, the
    refusal says to try again soon.
    """
    caps = msgspec.json.decode(answer, type=ResourceAnswer).caps
    of_the_team = None if caps is None else caps.run_micro
    ours = own_cap is not None and (of_the_team is None or own_cap * MICRO <= of_the_team)
    cause = "gateway_run_cap_reached" if ours else str(Reason.RUN_CAP_REACHED)
    others = [cap for cap in (of_the_team, own_cap and own_cap * MICRO) if cap is not None]
    if accepted_micro is not None and all(accepted_micro <= cap for cap in others):
        cause = "accepted_cap_reached"
    name = credits_name(resource, bot_name)
    refusal = Refusal(
        429,
        "run_cap",
        f"This task has used the {name} that one task may use; "
        f"{_credits(max(remaining_micro, 0))} are left.",
        retry=False,
        code="insufficient_quota",
        details={"cause": cause},
        denial=True,
    )
    if remaining_micro + held_micro >= needed_micro:
        _let_wait(refusal, f"Other calls of this task hold the {name} that one task may use.")
    return refusal


def _let_wait(refusal: Refusal, why: str) -> None:
    """Change the refusal to say that the same call may soon be admitted."""
    refusal.message = f"{why} Please try again."
    refusal.retry_after, refusal.retry, refusal.denial = 1, True, False
    refusal.code = "rate_limit_exceeded"


def credits_name(resource: str, bot_name: str) -> str:
    """Return the name of a bucket's credits, "credits" by default."""
    return _NAMES.get(resource, "credits").format(bot_name=bot_name)


def _reset(found: ResourceAnswer) -> list[str]:
    """Return the sentence that says when the credits reset, if that is known.

    The date is in the limit's own time zone, which is named unless it is UTC.
    """
    if found.resets_at is None:
        return []
    resets_at = datetime.fromisoformat(found.resets_at)
    try:
        local = resets_at.astimezone(ZoneInfo(found.time_zone))
    except (ZoneInfoNotFoundError, ValueError):  # this machine may know fewer zones than Django's
        return [f"They reset on {resets_at.astimezone(UTC):%Y-%m-%d}."]
    zone = "" if found.time_zone == "UTC" else f" ({found.time_zone})"
    return [f"They reset on {local:%Y-%m-%d}{zone}."]


def _refusal(
    sentences: list[str], resets_at: str | None, billing_url: str, cause: str | None, **details: Any
) -> Refusal:
    advice = _ADVICE.get(cause or "", f"Top up at {billing_url} to continue.")
    sentences = [*sentences, advice]
    return Refusal(
        429,
        REASON,
        " ".join(sentences),
        retry_after=60,
        retry=False,
        code="insufficient_quota",
        details={"resets_at": resets_at, "billing_url": billing_url, "cause": cause, **details},
        denial=True,
    )


def _credits(micro: int) -> str:
    """Return micro-credits as text in credits. A small amount is never shown as zero."""
    if 0 < micro < MICRO // 100:
        return "<0.01"
    return f"{micro / MICRO:.2f}"

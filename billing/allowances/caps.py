"""Caps within an organization's limit: what one project, user or run can use of a bucket."""

from collections.abc import Iterable
from datetime import datetime

from billing.allowances.audited_rows import locked_account, save_with_audit
from billing.credits import MAXIMUM_MICRO
from billing.decisions import cap_usage
from billing.decisions.enforcement import enforce
from billing.decisions.timeline import load_timelines
from billing.models import Account, AuditEntry, Cap, UsageEvent
from projects.models import Organization, Project


def set_cap(
    organization: Organization,
    resource: str,
    scope: str,
    cap_micro: int | None,
    *,
    subject: str = "",
    actor: str = "",
    reason: str = "",
) -> Cap:
    """Cap a project (by its number), a user or each run, in micro-credits, and publish it.

    Without a subject, the cap applies to each project, user or run that has no cap of its own. None
    removes the cap. For a named subject, it also exempts that subject from the cap for each. A cap
    applies to the whole of the current period. Raises `ValueError` if the cap is invalid.
    """
    check_cap(organization, scope, subject, cap_micro)
    with locked_account(organization, resource) as (account, now):
        cap = Cap(account=account, scope=scope, subject=subject, cap_micro=cap_micro, set_at=now)
        save_with_audit(AuditEntry.Action.CAP_SET, cap, actor=actor, reason=reason)
        account.caps_version += 1
        recount_caps([account], now)
        enforce([account], now)
    return cap


def recount_caps(accounts: Iterable[Account], now: datetime) -> None:
    """Count the usage of subjects again, for those of the locked accounts that have caps."""
    capped = [account for account in accounts if account.caps_version]
    timelines = load_timelines(account.pk for account in capped) if capped else {}
    for account in capped:
        cap_usage.recount(account, timelines[account.pk].period_at(now))


def is_known_user(account: Account, subject: str) -> bool:
    """Return whether a user ever used the account's credits, or has a cap already."""
    return (
        UsageEvent.objects.filter(account=account, distinct_id=subject).exists()
        or Cap.objects.filter(account=account, scope=Cap.Scope.USER, subject=subject).exists()
    )


def check_cap(organization: Organization, scope: str, subject: str, cap_micro: int | None) -> None:
    """Raise `ValueError` if the cap is invalid."""
    if scope not in Cap.Scope.values:
        raise ValueError(f"a cap is for a project, user or run, not {scope!r}")
    if cap_micro is not None and not 0 <= cap_micro <= MAXIMUM_MICRO:
        raise ValueError("a cap is between 0 and 100,000,000,000 credits")
    if scope == Cap.Scope.RUN and subject:
        raise ValueError("a cap for runs applies to every run and has no subject")
    if len(subject) > 200 or not subject.isprintable():
        raise ValueError("a subject has at most 200 printable characters")
    if scope == Cap.Scope.PROJECT and subject:
        # Usage is counted for "7", not for "07".
        is_number = subject.isdecimal() and subject == str(int(subject))
        mine = Project.objects.filter(organization=organization)
        if not is_number or not mine.filter(pk=int(subject)).exists():
            raise ValueError(f"{organization} has no project {subject!r}")

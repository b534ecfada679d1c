"""Who is limited now, or close to it: until when, why, and what to do about it.

The number of queries does not depend on how many there are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Case, IntegerField, OuterRef, Q, QuerySet, Subquery, Value, When
from django.urls import reverse
from django.utils.http import urlencode

from billing.decisions.decision import State
from billing.models import Account
from console.report_permissions import ORGANIZATION_USAGE
from projects.models import Organization
from projects.slack.names import display_name, people
from quota.account_state import AccountState, from_json
from quota.models import CapState, QuotaState, SetMember
from quota.published.limited_set import expires_at
from quota.reason_words import in_words, state_in_words
from quota.reasons import Reason
from quota.resources import RESOURCES

SHOWN = 10


@dataclass(frozen=True, slots=True)
class Standing:
    """An account, project or user that is limited or close to it. Amounts are micro-credits.

    Unknown amounts are None. `until` is None if the state doesn't end by itself. `action` is the
    link that changes the state, empty if the user may not change it.
    """

    organization: Organization | None
    who: str
    bucket: str
    resource: str
    state: str
    why: str
    since: datetime | None
    until: datetime | None
    zone: str = "UTC"
    used_micro: int | None = None
    of_micro: int | None = None
    action: str = ""
    action_title: str = ""

    @property
    def is_refused(self) -> bool:
        """Whether work is refused now."""
        return self.state == State.LIMITED

    @property
    def state_words(self) -> str:
        """The state in words."""
        return state_in_words(self.state)

    @property
    def percent(self) -> int | None:
        """The share that is used, rounded down, or None if there is no amount to compare with."""
        if self.used_micro is None or not self.of_micro:
            return None
        return min(self.used_micro * 100 // self.of_micro, 100)


@dataclass(frozen=True, slots=True)
class Standings:
    """The rows to show, and how many more accounts there are."""

    rows: tuple[Standing, ...]
    more: int


def standings(user: Any, now: datetime) -> Standings | None:
    """Return who is limited or close to it, or None if the user may see neither kind."""
    sees_accounts = user.has_perms(["billing.view_account"])
    sees_members = user.has_perms(["quota.view_setmember"])
    if not sees_accounts and not sees_members:
        return None
    rows: list[Standing] = []
    more = 0
    if sees_accounts:
        accounts = list(_accounts()[: SHOWN + 1])
        if len(accounts) > SHOWN:
            more = _accounts().count() - SHOWN
        tops_up = user.has_perms(["billing.add_creditgrant"])
        rows += (_of_account(account, tops_up=tops_up) for account in accounts[:SHOWN])
    if sees_members:
        raises = user.has_perms(["billing.add_cap"])
        rows += _within_accounts(now, all_reasons=not sees_accounts, raises=raises)
    rows.sort(key=lambda row: not row.is_refused)
    return Standings(tuple(rows), more)


def usage_link(user: Any, organization: Organization | None, resource: str) -> str:
    """Return the address of an organization's usage, empty if the user may not see it."""
    if organization is None or not user.has_perms(ORGANIZATION_USAGE):
        return ""
    page = reverse("admin:projects_organization_usage", args=[organization.pk])
    return f"{page}?{urlencode({'resource': resource})}"


def _accounts() -> QuerySet[Account]:
    """Return the accounts to show: refused ones first, switched-off organizations last."""
    published = QuotaState.objects.filter(
        organization=OuterRef("organization"), resource=OuterRef("resource")
    )
    order = Case(
        When(reason=Reason.ORGANIZATION_INACTIVE, then=Value(3)),
        When(state=State.LIMITED, then=Value(0)),
        When(state=State.GRACE, then=Value(1)),
        default=Value(2),
        output_field=IntegerField(),
    )
    return (
        Account.objects.exclude(state__in=["", State.OK])
        .select_related("organization")
        .annotate(document=Subquery(published.values("document")[:1]), rank=order)
        .order_by("rank", "-exhausted_since", "organization__name", "resource")
    )


def _of_account(account: Any, *, tops_up: bool) -> Standing:
    state = from_json(account.document) if account.document else None
    inactive = account.reason == Reason.ORGANIZATION_INACTIVE
    until = None
    if state is not None:
        until = _until(state)
    return Standing(
        organization=account.organization,
        who="everybody",
        bucket=RESOURCES[account.resource].title,
        resource=account.resource,
        state=account.state,
        why=in_words(account.reason) if account.reason else "a warning threshold is reached",
        since=account.exhausted_since,
        until=until,
        zone=state.time_zone if state else "UTC",
        used_micro=state.usage_micro if state else None,
        of_micro=state.available_micro if state else None,
        action=_form("creditgrant", account=account.pk) if tops_up and not inactive else "",
        action_title="Top up",
    )


def _until(state: AccountState) -> datetime | None:
    if state.state == "grace":
        return expires_at(state.suspended_until)
    if state.limited:
        return expires_at(state.limited_until)
    return state.resets_at


def _within_accounts(now: datetime, *, all_reasons: bool, raises: bool) -> Iterator[Standing]:
    """Yield the projects and users that are refused although their account may have credits.

    With `all_reasons`, yield every limited project.
    """
    members = SetMember.objects.filter(limited_until__gt=now.timestamp())
    if not all_reasons:
        members = members.filter(
            Q(origin=SetMember.Origin.BY_HAND) | Q(reason=Reason.PROJECT_CAP_REACHED)
        )
    shown = list(
        members.select_related("project__organization").order_by("-since", "-changed_at")[:SHOWN]
    )
    users = list(
        CapState.objects.filter(scope=CapState.Scope.USER, exhausted=True)
        .select_related("organization")
        .order_by("organization__name", "subject")[:SHOWN]
    )
    organizations = {member.project.organization_id for member in shown if member.project}
    organizations |= {row.organization_id for row in users}
    accounts = _by_key(organizations)
    for member in shown:
        yield _of_member(member, accounts, raises=raises)
    known = people(row.subject for row in users)
    for row in users:
        account = accounts.get((row.organization_id, row.resource))
        yield Standing(
            organization=row.organization,
            who=f"user {display_name(row.subject, known)}",
            bucket=RESOURCES[row.resource].title,
            resource=row.resource,
            state="limited",
            why=in_words(Reason.USER_CAP_REACHED),
            since=None,
            until=_period_end(account) if row.cap_micro else None,
            zone=_zone(account),
            used_micro=row.usage_micro,
            of_micro=row.cap_micro,
            action=_cap_form(account, "user", row.subject) if raises else "",
            action_title="Change the cap",
        )


def _by_key(organizations: Iterable[UUID]) -> dict[tuple[UUID, str], Any]:
    published = QuotaState.objects.filter(
        organization=OuterRef("organization"), resource=OuterRef("resource")
    )
    found = Account.objects.filter(organization__in=list(organizations)).annotate(
        document=Subquery(published.values("document")[:1])
    )
    return {(account.organization_id, account.resource): account for account in found}


def _period_end(account: Any) -> datetime | None:
    return from_json(account.document).resets_at if account and account.document else None


def _zone(account: Any) -> str:
    return from_json(account.document).time_zone if account and account.document else "UTC"


def _of_member(
    member: SetMember, accounts: dict[tuple[UUID, str], Any], *, raises: bool
) -> Standing:
    project = member.project
    by_hand = member.origin == SetMember.Origin.BY_HAND
    capped = not by_hand and member.reason == Reason.PROJECT_CAP_REACHED
    action = ""
    account = accounts.get((project.organization_id, member.resource)) if project else None
    if project is not None and capped and raises:
        action = _cap_form(account, "project", str(project.pk))
    return Standing(
        organization=project.organization if project else None,
        who=f"project {project.name}" if project else f"no project: {member.token}",
        bucket=member.get_resource_display(),
        resource=member.resource,
        state="limited",
        why=in_words(Reason.SET_BY_HAND if by_hand else member.reason),
        since=member.since,
        until=expires_at(member.limited_until),
        zone=_zone(account),
        action=action,
        action_title="Change the cap",
    )


def _cap_form(account: Any, scope: str, subject: str) -> str:
    return _form("cap", account=account.pk, scope=scope, subject=subject) if account else ""


def _form(model: str, **initial: Any) -> str:
    return f"{reverse(f'admin:billing_{model}_add')}?{urlencode(initial)}"

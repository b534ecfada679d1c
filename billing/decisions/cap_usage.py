"""What projects and users have used of an account with caps: a projection of the ledger.

Usage is counted only for accounts with caps, so that other accounts cost nothing. The caller must
lock the account's row.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from django.db.models import F, Q, QuerySet, Sum

from billing.models import Account, Cap, UsageEvent
from billing.periods import Period
from projects.models import Project
from quota.models import CapState

Subject = tuple[str, str]
"""A scope and the project or user in it: ("project", "7") or ("user", "slack:T1:U1")."""

SUBJECT_OF = {Cap.Scope.PROJECT.value: "project_id", Cap.Scope.USER.value: "distinct_id"}


@dataclass(frozen=True, slots=True)
class CapsInForce:
    """The newest cap for `each` subject of a scope and for `named` subjects, in micro-credits."""

    each: dict[str, int | None] = field(default_factory=dict)
    named: dict[Subject, int | None] = field(default_factory=dict)

    def cap_of(self, subject: Subject) -> int | None:
        """Return the cap of a subject, None if it has none."""
        if subject in self.named:
            return self.named[subject]
        return self.each.get(subject[0])

    def caps_any(self, scope: str) -> bool:
        """Return whether any subject of the scope is capped."""
        named = (cap for (kind, _), cap in self.named.items() if kind == scope)
        return self.each.get(scope) is not None or any(cap is not None for cap in named)


@dataclass(slots=True)
class SubjectUsage:
    """What one subject used in the period, and what groups ever booked for it."""

    usage: int = 0
    booked: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def load_caps(accounts: Iterable[Account]) -> dict[int, CapsInForce]:
    """Return the caps of the accounts that ever had any. Runs no query if none did."""
    found = {account.pk: CapsInForce() for account in accounts if account.caps_version}
    if found:
        rows = Cap.objects.filter(account__in=found).order_by("set_at", "pk")
        for pk, scope, subject, micro in rows.values_list(
            "account_id", "scope", "subject", "cap_micro"
        ):
            if subject:
                found[pk].named[scope, subject] = micro
            else:
                found[pk].each[scope] = micro
    return found


def add_usage(account: Account, caps: CapsInForce, counts: Mapping[Subject, SubjectUsage]) -> None:
    """Add the counts to the subjects' usage and to their groups' bookings.

    If gateways need to read the account's caps again, its `caps_version` is increased, for the
    caller to store. They need to if more changed than a group's own bookings, or if a cap was
    reached: a group's counter misses the calls that were under way when the cap was set.
    """
    counted_subjects = {
        subject: counted for subject, counted in counts.items() if _is_counted(caps, subject)
    }
    if not counted_subjects:
        return
    rows = _rows(account)
    present = {
        (row.scope, row.subject): row
        for row in rows.filter(subject__in={subject for _, subject in counted_subjects})
    }
    changed = []
    reached = False
    for (scope, subject), counted in sorted(counted_subjects.items()):
        row = present.get((scope, subject)) or _row(account, (scope, subject))
        _add_to(row, caps, counted)
        if not row.exhausted and row.cap_micro is not None and row.usage_micro >= row.cap_micro:
            reached = True
        changed.append(row)
    _write(changed)
    others = any(
        counted.usage != sum(counted.booked.values()) for counted in counted_subjects.values()
    )
    if reached or others:
        account.caps_version += 1


def _is_counted(caps: CapsInForce, subject: Subject) -> bool:
    return subject in caps.named or caps.each.get(subject[0]) is not None


def recount(account: Account, period: Period) -> None:
    """Count the usage of a capped account's subjects again, from the ledger."""
    [caps] = load_caps([account]).values()
    known = set(_rows(account).filter(exhausted=True).values_list("scope", "subject"))
    _rows(account).delete()
    made = []
    for subject, counted in sorted(counts_of_ledger(account, caps, period).items()):
        row = _row(account, subject)
        _add_to(row, caps, counted)
        row.exhausted = subject in known
        made.append(row)
    CapState.objects.bulk_create(made, batch_size=1_000)


def counts_of_ledger(
    account: Account, caps: CapsInForce, period: Period
) -> dict[Subject, SubjectUsage]:
    """Return the usage of every counted subject from the ledger. Includes all named subjects."""
    counts = {subject: SubjectUsage() for subject in caps.named if subject[0] in SUBJECT_OF}
    if caps.each.get(Cap.Scope.PROJECT) is not None:  # a cap of 0 applies to unused projects too
        projects = Project.objects.filter(organization=account.organization_id)
        for pk in projects.values_list("pk", flat=True):
            counts[Cap.Scope.PROJECT.value, str(pk)] = SubjectUsage()
    events = UsageEvent.objects.filter(account=account).order_by()
    for scope, column in SUBJECT_OF.items():
        if not (caps.each.get(scope) is not None or any(kind == scope for kind, _ in caps.named)):
            continue
        for subject, micro in _sums(
            events.filter(occurred_at__gte=period.start, occurred_at__lt=period.end), column
        ):
            if _is_counted(caps, (scope, subject)):
                counts.setdefault((scope, subject), SubjectUsage()).usage = micro
        debits = events.exclude(group="").values_list(column, "group")
        for subject, group, micro in debits.annotate(micro=Sum("debited_micro")):
            if subject and _is_counted(caps, (scope, str(subject))):
                counts.setdefault((scope, str(subject)), SubjectUsage()).booked[group] = micro
    return counts


def _sums(events: QuerySet[UsageEvent], column: str) -> Iterator[tuple[str, int]]:
    for subject, micro in events.values_list(column).annotate(micro=Sum("credits_micro")):
        if subject:
            yield str(subject), micro


def load_cap_states(accounts: Sequence[Account]) -> dict[int, list[CapState]]:
    """Return the rows that a decision needs, by account id.

    These are the rows of all projects, and of the users who have reached their cap now or had
    reached it at the last decision.
    """
    capped = {
        (account.organization_id, account.resource): account.pk
        for account in accounts
        if account.caps_version
    }
    found: dict[int, list[CapState]] = {pk: [] for pk in capped.values()}
    if not capped:
        return found
    reached = Q(usage_micro__gte=F("cap_micro"))
    rows = CapState.objects.filter(
        Q(scope=CapState.Scope.PROJECT) | Q(exhausted=True) | reached,
        organization__in={organization for organization, _ in capped},
    )
    for row in rows.order_by("scope", "subject"):
        pk = capped.get((row.organization_id, row.resource))
        if pk is not None:
            found[pk].append(row)
    return found


def mark_exhausted(account: Account, reached: Iterable[Subject], lifted: Iterable[Subject]) -> None:
    """Record which subjects have reached their cap, and which no longer have."""
    for subjects, flag in ((reached, True), (lifted, False)):
        for scope, subject in subjects:
            _rows(account).filter(scope=scope, subject=subject).update(exhausted=flag)


def _rows(account: Account) -> QuerySet[CapState]:
    return CapState.objects.filter(organization=account.organization_id, resource=account.resource)


def _row(account: Account, subject: Subject) -> CapState:
    return CapState(
        organization_id=account.organization_id,
        resource=account.resource,
        scope=subject[0],
        subject=subject[1],
    )


def _add_to(row: CapState, caps: CapsInForce, counted: SubjectUsage) -> None:
    row.cap_micro = caps.cap_of((row.scope, row.subject))
    row.usage_micro += counted.usage
    for group, micro in counted.booked.items():
        row.booked[group] = row.booked.get(group, 0) + micro


def _write(rows: Sequence[CapState]) -> None:
    CapState.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["organization", "resource", "scope", "subject"],
        update_fields=["cap_micro", "usage_micro", "booked"],
    )

"""Look up which decisions were in force at an instant, to explain a refusal."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection
from datetime import datetime

from django.db.models import Max, Q

from billing.models import Account, DecisionRecord

Subject = tuple[str, str]
"""Scope and subject of a decision: the whole account, or the cap of a project or user."""

WHOLE_ACCOUNT: Subject = ("", "")


class DecisionHistory:
    """The decisions about some subjects of an account at some instants. Takes two queries."""

    def __init__(
        self, account: Account, subjects: Collection[Subject], instants: Collection[datetime]
    ) -> None:
        """Load the decisions that were in force at any of the instants."""
        self._records: dict[Subject, list[DecisionRecord]] = defaultdict(list)
        if not instants:
            return
        about = Q()
        for scope, subject in subjects:
            about |= Q(scope=scope, subject=subject)
        records = DecisionRecord.objects.filter(about, account=account).order_by()
        began = records.filter(decided_at__lte=min(instants)).values_list("scope", "subject")
        since = Q(decided_at__gt=min(instants))
        for scope, subject, decided_at in began.annotate(latest=Max("decided_at")):
            since |= Q(scope=scope, subject=subject, decided_at=decided_at)
        wanted = records.filter(since, decided_at__lte=max(instants))
        for record in wanted.order_by("decided_at", "pk"):
            self._records[record.scope, record.subject].append(record)

    def in_force(self, subject: Subject, instant: datetime) -> DecisionRecord | None:
        """Return the decision about the subject that was in force at the instant, if any."""
        records = self._records[subject]
        at = bisect_right(records, instant, key=lambda record: record.decided_at)
        return records[at - 1] if at else None

    def refusing(self, subjects: Collection[Subject], instant: datetime) -> DecisionRecord | None:
        """Return the decision that refused the first refused subject at the instant, if any."""
        found = (self.in_force(subject, instant) for subject in subjects)
        return next((record for record in found if record and record.state == "limited"), None)

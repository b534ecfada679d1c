"""Everything that one person's Home tab shows, read at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from billing.reports.ranking import Ranking, rank
from billing.reports.sums import Used
from projects.models import SlackWorkspace
from quota import gate
from quota.account_state import AccountState
from workflows.credit_requests.asking import askable_mention
from workflows.credit_requests.credits_left import account_state
from workflows.credit_requests.deciding import may_decide
from workflows.home.own_tasks import OwnTasks, others_at_work, own_tasks
from workflows.home.team_usage import remembered_team_usage
from workflows.models import CreditRequest

_SPENDERS = 5


@dataclass(frozen=True, slots=True)
class Home:
    """What a Home tab shows."""

    now: datetime
    tasks: OwnTasks
    others_at_work: int
    verdict: gate.Verdict | None
    """None if it is unknown whether credits are left."""
    account: AccountState | None
    since: datetime
    own: Used
    team: Used
    days: Mapping[date, Used]
    spenders: Ranking | None
    """Who used most. None for those who may not see it."""
    ask_for: UUID | None
    """The refused mention for which the person can ask for credits."""
    waits: bool
    """Whether their request for credits is open."""


def read(workspace: SlackWorkspace, user_id: str, now: datetime) -> Home:
    """Return what the person's Home tab shows. The caller has checked their access."""
    usage = remembered_team_usage(workspace, now)
    distinct_id = workspace.distinct_id(user_id)
    verdict = _verdict(workspace, distinct_id)
    limited = verdict is not None and verdict.limited
    asked = CreditRequest.objects.filter(
        mention__workspace=workspace, mention__user_id=user_id, state__in=CreditRequest.WAITING
    )
    mention = askable_mention(workspace, user_id) if limited else None
    return Home(
        now=now,
        tasks=own_tasks(workspace, user_id),
        others_at_work=others_at_work(workspace, user_id),
        verdict=verdict,
        account=account_state(workspace),
        since=usage.since,
        own=usage.of(distinct_id),
        team=usage.total,
        days=usage.days,
        spenders=rank(usage.by_user, _SPENDERS) if may_decide(workspace, user_id) else None,
        ask_for=None if mention is None else mention.pk,
        waits=asked.exists(),
    )


def _verdict(workspace: SlackWorkspace, distinct_id: str) -> gate.Verdict | None:
    try:
        verdict = gate.check(workspace.project, distinct_id=distinct_id)
    except gate.QuotaUnknown:
        return None
    return None if verdict.state == "unknown" else verdict

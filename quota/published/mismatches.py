"""Finding published rows that were changed behind the back of `publication`."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from uuid import UUID

from projects.models import Project
from quota.account_state import Account, AccountState
from quota.models import QuotaState, SetMember


def find_mismatches(decided: Collection[AccountState]) -> dict[Account, str]:
    """Return a sentence for each account whose published rows differ from its decided state.

    The states carry the versions under which they were published. Makes three queries in all and
    takes no locks: check again under a lock, because a publication may have come in between.
    """
    organizations = {state.organization_id for state in decided}
    rows = {
        (row.organization_id, row.resource): row
        for row in QuotaState.objects.filter(organization__in=organizations)
    }
    projects: dict[UUID, list[Project]] = defaultdict(list)
    for project in Project.objects.filter(organization__in=organizations):
        projects[project.organization_id].append(project)
    members: dict[Account, dict[str, SetMember]] = defaultdict(dict)
    for member in SetMember.objects.filter(
        organization__in=organizations, origin=SetMember.Origin.PUBLISHED
    ):
        if member.organization_id is not None:
            members[member.organization_id, member.resource][member.token] = member
    found = {}
    for state in decided:
        account = (state.organization_id, state.resource)
        sentence = _state_row(state, rows.get(account)) or next(
            _members(state, projects[state.organization_id], members[account]), None
        )
        if sentence is not None:
            found[account] = sentence
    return found


def _state_row(state: AccountState, row: QuotaState | None) -> str | None:
    if row is None:
        return "no state is published"
    published = (row.version, row.state, row.valid_until, row.document)
    if published != (state.version, state.state, state.valid_until, state.to_json()):
        return "the published state differs from the decided one"
    return None


def _members(
    state: AccountState, projects: Collection[Project], members: dict[str, SetMember]
) -> Iterator[str]:
    tokens = {project.api_token for project in projects}
    for project in projects:
        score = state.score_of(project.pk)
        row = members.get(project.api_token)
        if row is None:
            if score is not None or state.suspended_until is not None:
                yield f"project {project.pk} is not published as limited"
            continue
        published = (row.limited_until, row.suspended_until, row.reason)
        decided = (score, state.suspended_until, state.reason_of(project.pk) or "")
        is_same = row.project_id == project.pk and (row.since is None) == (score is None)
        if published != decided or not is_same:
            yield f"project {project.pk} is published as {published}, decided as {decided}"
    for token, row in members.items():
        if token not in tokens and (row.limited_until, row.suspended_until) != (None, None):
            yield "a token that belongs to no project is published as limited"

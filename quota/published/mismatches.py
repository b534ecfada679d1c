"""Published rows that differ from what was decided: written without `publication`."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from uuid import UUID

from projects.models import Project
from quota.account_state import Account, AccountState
from quota.models import QuotaState, SetMember


def find_mismatches(decided: Collection[AccountState]) -> dict[Account, str]:
    """Return a sentence for each account of which something is published that was not decided.

    The states carry the versions under which they were published. Three queries for all; reads
    without locks, so what is published meanwhile has to be looked at again under one.
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
    said = (row.version, row.state, row.valid_until, row.document)
    if said != (state.version, state.state, state.valid_until, state.to_json()):
        return "the published state is not the one that was decided"
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
        said = (row.project_id, row.limited_until, row.suspended_until, row.reason)
        wanted = (project.pk, score, state.suspended_until, state.reason_of(project.pk) or "")
        if said != wanted or (row.since is None) != (score is None):
            yield f"project {project.pk} is published as {said[1:]}, decided was {wanted[1:]}"
    for token, row in members.items():
        if token not in tokens and (row.limited_until, row.suspended_until) != (None, None):
            yield "a token that is no project's is published as limited"

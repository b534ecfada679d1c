"""`GET /api/projects/<id>/usage/` says exactly where the credits went."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from billing.organizations import create_project
from billing.reports.usage import usage_of_run, usage_of_task_runs
from projects import credential_cache
from projects.authentication.credentials import issue_personal_api_key
from projects.models import User
from projects.principal import BILLING_READ, LLM_GATEWAY_READ, PROJECT_READ
from tests.billing.world import SERVICE, book, usage_event

pytestmark = pytest.mark.django_db
RUN = "7d3b5c52-92d3-4a0e-8b3a-1c5b3b3b9f54"


@pytest.fixture(autouse=True)
def nothing_remembered():
    credential_cache.forget_all()
    yield
    credential_cache.forget_all()


@pytest.fixture
def ask(client, project):
    """Return a function that gets the project's usage, with a key of the project."""
    _, key = issue_personal_api_key(project.organization, "reports", [BILLING_READ], [project])

    def _ask(asked=project, key=key, **parameters):
        headers = {"HTTP_AUTHORIZATION": f"Bearer {key}"} if key else {}
        return client.get(f"/api/projects/{asked.pk}/usage/", parameters, **headers)

    return _ask


def test_it_sums_up_the_ledger(project, ask):
    book(
        usage_event(project, "0.000000013"),
        usage_event(project, "0.10"),
        usage_event(project, "0.10", properties={"ai_product": "posthog_code"}),
        usage_event(project, "0.10", properties={"$ai_billable": False}),
    )

    answer = ask().json()

    assert answer["project_id"] == project.pk
    assert answer["credits"] == {"ai_credits": "12.000002", "posthog_code_credits": "10"}
    by_bucket = {result["resource"]: result for result in answer["results"]}
    assert by_bucket["ai_credits"]["events"] == 2
    assert by_bucket["ai_credits"]["input_tokens"] == 2400
    assert by_bucket[None]["credits"] == "0"


def test_it_groups_by_the_given_keys(project, ask):
    yesterday = timezone.now() - timedelta(days=1)
    book(
        usage_event(project, distinct_id="slack:T1:U1"),
        usage_event(project, distinct_id="slack:T1:U2", properties={"task_run_id": RUN}),
        usage_event(project, at=yesterday, properties={"$ai_model": "claude-haiku-4-5"}),
    )

    def groups(group_by):
        return [
            (*(result[name] for name in group_by.split(",")), result["credits"])
            for result in ask(group_by=group_by).json()["results"]
        ]

    today, before = (f"{at.astimezone(UTC):%Y-%m-%d}" for at in (timezone.now(), yesterday))
    assert groups("day") == [(before, "12"), (today, "24")]
    assert groups("user") == [("slack:T1:U1", "24"), ("slack:T1:U2", "12")]
    assert groups("model") == [("claude-haiku-4-5", "12"), ("claude-sonnet-4-5", "24")]
    assert (RUN, "12") in groups("run")
    assert groups("product,user") == [
        ("slack_app", "slack:T1:U1", "24"),
        ("slack_app", "slack:T1:U2", "12"),
    ]


def test_days_begin_and_end_at_midnight_of_utc(project, ask):
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    day = midnight - timedelta(days=3)
    for at in (day - timedelta.resolution, day, day + timedelta(days=1)):
        book(usage_event(project, at=at))

    answer = ask(since=f"{day:%Y-%m-%d}", until=f"{day + timedelta(days=1):%Y-%m-%d}").json()

    assert answer["credits"] == {"ai_credits": "12"}


def test_usage_of_other_projects_is_not_included(project, stranger, ask):
    sibling = create_project(project.organization, "Sibling")
    book(*(usage_event(each) for each in (project, sibling, stranger)))

    assert ask().json()["credits"] == {"ai_credits": "12"}


@pytest.mark.parametrize(
    "parameters",
    [
        {"since": "yesterday"},
        {"until": "2026-13-01"},
        {"until": "9999-12-31"},
        {"since": "0001-01-01"},
        {"since": "20261101"},
        {"since": "2026-W47-1"},
        {"since": "2026-1-1"},
        {"since": "1999-12-31"},
        {"since": ""},
        {"until": "3000-01-01"},
        {"until": " 2026-11-01"},
        {"until": "2026-11-01T00:00"},
        {"until": "２026-11-01"},
        {"since": ["2026-11-01", "2026-11-01"]},
        {"group_by": "colour"},
        {"group_by": "day,day"},
        {"group_by": ","},
        {"group_by": "day,"},
        {"group_by": "Day"},
        {"group_by": "day, model"},
        {"group_by": ["day", "model"]},
    ],
)
def test_an_invalid_query_is_400(ask, parameters):
    assert ask(**parameters).status_code == 400


def test_the_result_is_empty_if_until_is_before_since(project, ask):
    book(usage_event(project))

    answer = ask(since="2999-12-31", until="2000-01-01").json()

    assert (answer["results"], answer["credits"]) == ([], {})


def test_all_usage_ever_can_be_queried(project, ask):
    book(usage_event(project))

    assert ask(since="2000-01-01", until="2999-12-31").json()["credits"] == {"ai_credits": "12"}


class TestAccess:
    def test_nobody_without_a_credential(self, ask):
        assert ask(key=None).status_code == 401
        assert ask(key="phx_unknown").status_code == 401

    def test_nobody_without_the_scope(self, project, ask):
        scopes = [PROJECT_READ, LLM_GATEWAY_READ]
        _, key = issue_personal_api_key(project.organization, "gateway", scopes, [project])

        refused = ask(key=key)

        assert refused.status_code == 403
        assert BILLING_READ in refused.json()["detail"]

    def test_nobody_of_another_organization(self, stranger, ask):
        _, key = issue_personal_api_key(stranger.organization, "theirs", [BILLING_READ], [stranger])

        assert ask(key=key).status_code == 404
        assert ask(asked=stranger).status_code == 404

    def test_no_key_of_a_sibling_project(self, project, ask):
        sibling = create_project(project.organization, "Sibling")

        assert ask(asked=sibling).status_code == 403

    def test_a_members_session_and_the_service_have_access(self, project, stranger, client):
        member = User.objects.create_user("ada", password="a long password")
        project.organization.members.add(member)
        client.force_login(member)

        assert client.get(f"/api/projects/{project.pk}/usage/").status_code == 200
        assert client.get(f"/api/projects/{stranger.pk}/usage/").status_code in (403, 404)
        client.logout()
        assert client.get(f"/api/projects/{project.pk}/usage/", **SERVICE).status_code == 200


def test_what_task_runs_used_is_found_by_their_ids(project):
    event = usage_event(project, properties={"task_run_id": RUN})
    book(event, usage_event(project, properties={"task_run_id": None}), usage_event(project))
    run, other = UUID(RUN), UUID(int=7)

    assert (usage_of_run(run), usage_of_run(other)) == (12_000_000, 0)
    assert usage_of_task_runs([run, other]) == {run: 12_000_000}

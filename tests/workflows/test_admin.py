"""The admin's pages of mentions, notices and follow-ups."""

import pytest
from django.test import Client
from django.urls import reverse

from projects.models import Organization, Project, SlackWorkspace, User
from workflows import notices
from workflows.models import FollowUp, Mention, Notice

PAGES = ["mention", "notice", "followup"]


@pytest.fixture
def mentions(db) -> list[Mention]:
    """Mentions in twenty workspaces, each with a denial and a follow-up."""
    organization = Organization.objects.create(name="Acme")
    made = []
    for number in range(20):
        workspace = SlackWorkspace.objects.create(
            project=Project.objects.create(organization=organization, name=f"Project {number}"),
            team_id=f"T{number}",
            bot_user_id="UBOT",
            bot_token="xoxb-secret",
        )
        where = {"workspace": workspace, "channel_id": "C1", "ts": f"{number}.1"}
        mention = Mention.objects.create(
            **where,
            team_id=workspace.team_id,
            thread_ts=f"{number}.1",
            user_id="U1",
            text=f"<script>request {number}</script>",
            state="refused",
            outcome="out of credits: limit_reached",
            workflow_id=f"mention-T{number}-C1-{number}.1",
        )
        notices.claim(f"denial:{mention.pk}", Notice.Kind.DENIAL, mention, "No credits.")
        FollowUp.objects.create(
            **where, thread_ts="1.1", user_id="U1", text="and?", addressed=False, workflow_id="w"
        )
        made.append(mention)
    return made


@pytest.fixture
def staff(db) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", "root@example.com", "a password"))
    return client


@pytest.mark.parametrize("page", PAGES)
def test_a_list_takes_few_queries_however_long_it_is(
    staff, mentions, page, django_assert_max_num_queries
):
    with django_assert_max_num_queries(12):
        response = staff.get(reverse(f"admin:workflows_{page}_changelist"))
    assert response.status_code == 200
    assert b"Project 19" in response.content
    assert b"xoxb-secret" not in response.content
    assert b"<script>request" not in response.content


@pytest.mark.parametrize("page", PAGES)
def test_a_record_can_be_read_but_not_changed_or_deleted(staff, mentions, page):
    row = {"mention": Mention, "notice": Notice, "followup": FollowUp}[page].objects.first()
    address = reverse(f"admin:workflows_{page}_change", args=[row.pk])
    assert staff.get(address).status_code == 200
    assert staff.post(address, {"text": "other"}).status_code == 403
    delete = reverse(f"admin:workflows_{page}_delete", args=[row.pk])
    assert staff.post(delete, {"post": "yes"}).status_code == 403
    assert staff.get(reverse(f"admin:workflows_{page}_add")).status_code == 403


def test_a_mention_shows_its_outcome_what_was_said_and_its_workflow(staff, mentions, settings):
    settings.TEMPORAL_UI_URL = "https://temporal.example.com"
    page = staff.get(reverse("admin:workflows_mention_change", args=[mentions[3].pk]))
    shown = page.content.decode()
    assert "out of credits: the limit and all top-ups are used up" in shown
    assert "No credits." in shown
    assert (
        'href="https://temporal.example.com/namespaces/default/workflows/mention-T3-C1-3.1"'
        in shown
    )


@pytest.mark.parametrize(
    ("query", "found"),
    [({"q": "request 13"}, 1), ({"q": "U1"}, 20), ({"state": "refused"}, 20), ({"q": "nobody"}, 0)],
)
def test_mentions_are_searched_and_filtered(staff, mentions, query, found):
    response = staff.get(reverse("admin:workflows_mention_changelist"), query)
    assert len(response.context["cl"].result_list) == found


def test_only_staff_sees_the_admin_pages(client, mentions):
    for page in PAGES:
        assert client.get(reverse(f"admin:workflows_{page}_changelist")).status_code == 302

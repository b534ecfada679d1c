"""The admin's pages of cost confirmations and of quotes."""

import pytest
from django.test import Client
from django.urls import reverse

from projects.models import SlackWorkspace, User
from quota.resources import MICRO
from tests.ready_project import ready_project
from tests.workflows.quotes.past_runs import past_run
from workflows.models import CostConfirmation, RunQuote

pytestmark = pytest.mark.usefixtures("redis_client")


@pytest.fixture
def staff(db) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", "root@example.com", "a password"))
    return client


@pytest.fixture
def workspace(db) -> SlackWorkspace:
    return SlackWorkspace.objects.create(
        project=ready_project("Acme", "Main"), team_id="T1", bot_user_id="U", bot_token="x"
    )


def save(staff: Client, page: str, **fields: object):
    return staff.post(page, fields)


@pytest.mark.parametrize(
    ("typed", "kept"), [("40", 40 * MICRO), ("0.5", MICRO // 2), ("0", 0), ("", None)]
)
def test_a_threshold_is_typed_in_credits_and_shown_again(staff, workspace, typed, kept):
    page = reverse("admin:workflows_costconfirmation_add")
    answer = save(staff, page, project=workspace.project_id, credits=typed)
    assert answer.status_code == 302
    row = CostConfirmation.objects.get()
    assert row.ask_above_micro == kept
    page = reverse("admin:workflows_costconfirmation_change", args=[row.pk])
    assert f'name="credits" value="{typed}"' in staff.get(page).content.decode() or not typed
    assert save(staff, page, project=workspace.project_id, credits="").status_code == 302
    assert CostConfirmation.objects.get().ask_above_micro is None


def test_a_text_that_is_not_an_amount_is_refused(staff, workspace):
    page = reverse("admin:workflows_costconfirmation_add")
    answer = save(staff, page, project=workspace.project_id, credits="-1")
    assert "is not an amount of credits" in answer.content.decode()
    assert not CostConfirmation.objects.exists()


def test_quotes_are_listed_with_what_was_accepted_and_cannot_be_changed(staff, workspace):
    run = past_run(workspace, 3, accepted_micro=19 * MICRO)
    RunQuote.objects.create(
        run=run, history="agent", runs_compared=19, low_micro=MICRO, high_micro=18 * MICRO,
        offered_micro=20 * MICRO, state="accepted", answered_by="U1",
    )  # fmt: skip
    listed = staff.get(reverse("admin:workflows_runquote_changelist")).content.decode()
    for shown in ("1.00", "18.00", "20.00", "19.00", "Main", "U1"):
        assert shown in listed
    page = reverse("admin:workflows_runquote_change", args=[run.pk])
    assert "19.00" in staff.get(page).content.decode()
    assert save(staff, page, state="asked").status_code == 403

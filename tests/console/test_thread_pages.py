"""The thread pages: where a thread's credits went, and why a mention was refused."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing import organizations
from billing.allowances.caps import set_cap
from billing.allowances.limits import set_limit
from coding_tasks.models import CodingTask, Repository, TaskRun
from coding_tasks.reading.assignments import trace_of
from console.report_permissions import THREADS
from console.threads.search import Message, SlackUser, parse_query
from projects.models import SlackWorkspace, User
from quota.gate import check
from quota.resources import AI_CREDITS
from tests.billing.world import CREDIT, book, usage_event
from workflows.denials import refuse
from workflows.mention_types import workflow_id
from workflows.models import FollowUp, Mention, Notice
from workflows.notices import answer_key

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_client")]
SEARCH = reverse("threads")


@pytest.fixture
def workspace():
    project = organizations.create_project(organizations.create_organization("Acme"), "Bot")
    Repository.objects.create(
        project=project, full_name="acme/shop", clone_url="https://example.com/shop.git"
    )
    return SlackWorkspace.objects.create(
        project=project, team_id="T1", name="Acme", bot_user_id="UBOT", bot_token="xoxb-1"
    )


def follow_up(workspace, **fields):
    return FollowUp.objects.create(
        workspace=workspace,
        channel_id="C1",
        ts="105.000001",
        thread_ts="100.000001",
        user_id="U1",
        text="more",
        addressed=False,
        workflow_id="w",
        **fields,
    )


def mention(workspace, ts="100.000001", thread_ts=None, **fields):
    """Record a mention like the webhook."""
    return Mention.objects.create(
        workspace=workspace,
        team_id=workspace.team_id,
        channel_id="C1",
        ts=ts,
        thread_ts=thread_ts or ts,
        **({"user_id": "U1", "text": "<@UBOT> please help"} | fields),
    )


def task(workspace, thread_ts="100.000001", state="done"):
    """Create a task of the thread."""
    return CodingTask.objects.create(
        project=workspace.project,
        repository=Repository.objects.get(project=workspace.project),
        workspace=workspace,
        channel_id="C1",
        thread_ts=thread_ts,
        owner_slack_user_id="U1",
        title="please help",
        workflow_id=f"mention-T1-C1-{thread_ts}-{CodingTask.objects.count()}",
        state=state,
    )


def run(of, ts, *costs, model="claude-sonnet-4-6"):
    """Create a run with one generation for each cost, in dollars."""
    made = TaskRun.objects.create(task=of, message_ts=ts, request="please help", state="succeeded")
    properties = {"task_run_id": str(made.pk), "$ai_model": model}
    book(*(usage_event(of.project, cost, properties=properties) for cost in costs))
    return made


def page(workspace, thread_ts="100.000001"):
    """Return the address of a thread's page."""
    return reverse("thread", args=[workspace.pk, "C1", thread_ts])


def text_of(answer):
    """Return a page's text without its markup."""
    assert answer.status_code == 200
    text = re.sub(r"<[^>]*>", " ", answer.content.decode()).replace("&lt;", "<")
    return re.sub(r"\s+", " ", text)


class TestCredits:
    def test_they_are_shown_by_run_and_by_model_and_equal_the_ledger(self, admin_client, workspace):
        mention(workspace, state="answered")
        first, second = task(workspace), task(workspace, state="active")
        run(first, "100.000001", "0.10", "0.05")
        run(first, "101.000001", "0.0000001", model="claude-haiku-4-5")
        run(second, "102.000001", "0.20")
        run(task(workspace, "900.000001"), "900.000001", "5.00")  # another thread's

        answer = admin_client.get(page(workspace))
        thread, text = answer.context["thread"], text_of(answer)

        assert thread.credits_micro == 42 * CREDIT + 12
        models = [(row.model, row.generations, row.credits_micro) for row in thread.models]
        assert models == [("claude-sonnet-4-6", 3, 42 * CREDIT), ("claude-haiku-4-5", 1, 12)]
        assert "claude-haiku-4-5: 1 generation, <0.01" in text
        assert [work.credits_micro for work in thread.tasks] == [18 * CREDIT + 12, 24 * CREDIT]
        assert quote(first.workflow_id) in answer.content.decode()

    def test_choosing_the_repository_is_a_cost_of_the_thread(self, admin_client, workspace):
        mention(workspace, state="answered")
        run(task(workspace), "100.000001", "0.10")
        mention(workspace, "900.000001")
        stranger = organizations.create_project(
            organizations.create_organization("Stranger"), "Theirs"
        )
        choosing = {"ai_product": "slack_app_routing", "task_run_id": None}
        for project, ts, cost in (
            (workspace.project, "100.000001", "0.001"),
            (workspace.project, "900.000001", "0.002"),  # another thread's
            (stranger, "100.000001", "0.004"),  # another project's, with this thread's ts
        ):
            trace = {"$ai_trace_id": trace_of(workflow_id("T1", "C1", ts))}
            book(usage_event(project, cost, properties=choosing | trace))

        answer = admin_client.get(page(workspace))
        listed = admin_client.get(SEARCH, {"q": "U1"}).context["threads"]

        assert answer.context["thread"].credits_micro == 12 * CREDIT + 120_000
        assert {each.key.thread_ts: each.credits_micro for each in listed} == {
            "100.000001": 12 * CREDIT + 120_000,
            "900.000001": 240_000,
        }
        assert "used by 1 task, 0.12 to choose the repository" in text_of(answer)

    @pytest.mark.parametrize("state", ["sent", "given_up"])
    def test_an_answer_that_slack_did_not_take_is_shown(self, admin_client, workspace, state):
        mention(workspace, state="failed")
        made = run(task(workspace), "101.000001")  # the answer to a reply
        TaskRun.objects.update(answer="if a < b && c: <script>alert(1)</script>")
        Notice.objects.create(
            key=answer_key(made),
            kind="answer",
            workspace=workspace,
            channel_id="C1",
            thread_ts="100.000001",
            text="if a &lt; b &amp;&amp; c",
            state=state,
            destination="page",
            error="is_archived",
        )
        answer = admin_client.get(page(workspace))
        text = text_of(answer)
        refused = "page: kept here, because Slack refused it everywhere (is_archived)"
        assert f"Answer: {state.replace('_', ' ')}, {refused}" in text
        assert "if a < b &amp;&amp; c:" in text
        assert "<script>alert" not in answer.content.decode()

    def test_an_unknown_thread_is_not_found(self, admin_client, workspace):
        assert admin_client.get(page(workspace)).status_code == 404
        assert admin_client.get(reverse("thread", args=[99, "C1", "1.1"])).status_code == 404


class TestRefusals:
    def refused(self, workspace, **fields):
        made = mention(workspace, **fields)
        refuse(made, check(workspace.project, to_start=True))
        return made

    def test_the_decision_that_was_in_force_is_one_click_away(self, admin_client, workspace):
        organization = workspace.project.organization
        set_limit(organization, AI_CREDITS, 10 * CREDIT)
        book(usage_event(workspace.project, "0.10"))
        self.refused(workspace)
        set_limit(organization, AI_CREDITS, 1000 * CREDIT)
        mention(workspace, "200.000001", "100.000001", state="answered")

        answer = admin_client.get(page(workspace))
        [refused, answered] = answer.context["thread"].requests
        assert refused.refusal.decision.state == "limited"
        assert answered.refusal is None
        text = text_of(answer)
        assert (
            "the limit and all top-ups are used up (used 12.00 of a limit of 10.00, left 0.00)"
            in text
        )
        assert "Your team has used its monthly Tollgate AI credits." in text
        decision = reverse(
            "admin:billing_decisionrecord_change", args=[refused.refusal.decision.pk]
        )
        assert decision in answer.content.decode()
        assert admin_client.get(decision).status_code == 200

    def test_too_little_to_start_is_explained(self, admin_client, workspace):
        set_limit(workspace.project.organization, AI_CREDITS, CREDIT // 2)
        self.refused(workspace)

        text = text_of(admin_client.get(page(workspace)))
        assert "Some credits were left, but too few. A mention needs 1 credit to start" in text

    def test_a_block_set_by_hand_has_no_decision(self, admin_client, workspace, redis_client):
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).timestamp()
        redis_client.zadd(
            "@posthog/quota-limits/ai_credits", {workspace.project.api_token: tomorrow}
        )
        mention_row = mention(workspace, state="refused", outcome="out of credits: set_by_hand")

        answer = admin_client.get(page(workspace))
        assert answer.context["thread"].requests[0].message == mention_row
        assert "limited by hand in Redis" in text_of(answer)

    @pytest.mark.parametrize(
        ("scope", "why"),
        [
            ("project", "the cap of the project is reached"),
            ("user", "the cap of the user is reached"),
        ],
    )
    def test_a_cap_has_its_own_decision(self, admin_client, workspace, scope, why):
        subject = str(workspace.project_id) if scope == "project" else workspace.distinct_id("U1")
        organization = workspace.project.organization
        set_cap(organization, AI_CREDITS, scope, 10 * CREDIT, subject=subject)
        book(usage_event(workspace.project, "0.10", distinct_id=workspace.distinct_id("U1")))
        made = mention(workspace)
        verdict = check(workspace.project, distinct_id=workspace.distinct_id("U1"))
        refuse(made, verdict)

        [asked] = admin_client.get(page(workspace)).context["thread"].requests
        assert (asked.refusal.decision.scope, asked.refusal.decision.subject) == (scope, subject)
        assert why in text_of(admin_client.get(page(workspace)))
        decision = asked.refusal.decision
        shown = text_of(
            admin_client.get(reverse("admin:billing_decisionrecord_change", args=[decision.pk]))
        )
        assert f"used of the cap of {scope} {subject}: 12.00 of 10.00" in shown
        usage = reverse("admin:projects_organization_usage", args=[organization.pk])
        assert why in text_of(admin_client.get(usage))

    def test_another_reason_has_its_own_words(self, admin_client, workspace):
        mention(workspace, state="refused", outcome="another user's task")

        text = text_of(admin_client.get(page(workspace)))
        assert "another user&#x27;s task" in text
        assert "are used up" not in text
        assert "too little" not in text

    def test_the_reason_for_dropping_a_follow_up_is_shown(self, admin_client, workspace):
        mention(workspace, state="refused", outcome="another user's task")
        follow_up(
            workspace, state="dropped", outcome="its mention made no task: another user's task"
        )
        text = text_of(admin_client.get(page(workspace)))
        assert "dropped its mention made no task: another user&#x27;s task" in text

    def test_a_refused_follow_up_has_its_decision(self, admin_client, workspace):
        mention(workspace, state="answered")
        set_limit(workspace.project.organization, AI_CREDITS, 0)
        follow_up(workspace, state="refused")
        [_, refused] = admin_client.get(page(workspace)).context["thread"].requests
        assert refused.refusal.decision.state == "limited"


class TestSearch:
    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            (
                "https://a.slack.com/archives/C1/p1700000000123456",
                Message("C1", "1700000000.123456"),
            ),
            (
                " <https://a.slack.com/archives/C1/p1700000000123456?thread_ts=1699.5&cid=C1> ",
                Message("C1", "1700000000.123456", "1699.5"),
            ),
            ("C1 1700000000.123456", Message("C1", "1700000000.123456")),
            ("C1/1700000000.123456", Message("C1", "1700000000.123456")),
            ("U1", SlackUser("U1")),
            ("<@U1|carla>", SlackUser("U1")),
            ("W1", SlackUser("W1")),
            ("C1", None),
            ("https://a.slack.com/archives/C1/", None),
            ("https://[", None),
            (
                "https://a.slack.com/archives/C1/p1700000000123456?thread_ts=x",
                Message("C1", "1700000000.123456"),
            ),
            ("carla@example.com", None),
            ("\0", None),
        ],
    )
    def test_it_parses_what_people_copy(self, text, wanted):
        assert parse_query(text) == wanted

    @pytest.mark.parametrize(
        "query",
        [
            "https://a.slack.com/archives/C1/p100000001",
            "https://a.slack.com/archives/C1/p105000001?thread_ts=100.000001&cid=C1",
            "C1 105.000001",
        ],
    )
    def test_a_message_leads_to_its_thread(self, admin_client, workspace, query):
        mention(workspace)
        mention(workspace, "105.000001", "100.000001")
        answer = admin_client.get(SEARCH, {"q": query})
        assert answer.status_code == 302
        assert answer["Location"] == page(workspace)

    def test_a_message_of_two_workspaces_leads_to_both(self, admin_client, workspace):
        other = SlackWorkspace.objects.create(
            project=workspace.project, team_id="T2", bot_user_id="UBOT", bot_token="xoxb-1"
        )
        mention(workspace)
        mention(other)
        html = admin_client.get(SEARCH, {"q": "C1 100.000001"}).content.decode()
        assert page(workspace) in html
        assert page(other) in html

    def test_a_user_leads_to_all_their_own_threads(self, admin_client, workspace):
        mention(workspace, state="answered")
        run(task(workspace), "100.000001", "0.10")
        mention(workspace, "200.000001", state="refused", outcome="out of credits: limit_reached")
        mention(workspace, "300.000001", user_id="U2")

        answer = admin_client.get(SEARCH, {"q": "U1"})
        assert page(workspace) in answer.content.decode()
        assert page(workspace, "200.000001") in answer.content.decode()
        assert page(workspace, "300.000001") not in answer.content.decode()
        assert [row.credits_micro for row in answer.context["threads"]] == [0, 12 * CREDIT]
        assert answer.context["refused"] == 1

    @pytest.mark.parametrize(
        ("query", "sentence"),
        [
            ("U9", "They never mentioned the bot here."),
            ("C9 1.1", "Nobody mentioned the bot in its thread."),
            ("nonsense", "is not a permalink"),
            ("<script>alert(1)</script>", "is not a permalink"),
        ],
    )
    def test_a_search_without_results_says_why(self, admin_client, workspace, query, sentence):
        answer = admin_client.get(SEARCH, {"q": query})
        assert sentence in text_of(answer)
        assert "<script>alert" not in answer.content.decode()


class TestWhoMay:
    @pytest.fixture(params=["search", "thread"])
    def where(self, request, workspace):
        mention(workspace)
        return SEARCH if request.param == "search" else page(workspace)

    def test_anonymous_users_are_asked_to_log_in(self, client, where):
        answer = client.get(where)
        assert (answer.status_code, "/admin/login/" in answer["Location"]) == (302, True)

    def test_staff_needs_every_permission(self, client, where):
        reader = User.objects.create_user("reader", is_staff=True)
        client.force_login(reader)
        for permission in THREADS:
            assert client.get(where).status_code == 403
            codename = permission.partition(".")[2]
            reader.user_permissions.add(Permission.objects.get(codename=codename))
        assert client.get(where).status_code == 200


def test_pages_cost_the_same_number_of_queries_however_much_happened(
    admin_client, django_assert_num_queries, workspace
):
    set_limit(workspace.project.organization, AI_CREDITS, 0)

    def happen(number):
        made = mention(workspace, f"{number}.000001", "100.000001")
        refuse(made, check(workspace.project, to_start=True))
        run(task(workspace), f"{number}.000001", "0.1", model=f"model-{number}")
        mention(workspace, f"9{number}.000001")

    for where, query in ((page(workspace), {}), (SEARCH, {"q": "U1"})):
        base = CodingTask.objects.count() + 1000
        for number in range(base, base + 2):
            happen(number)
        admin_client.get(where, query)
        with CaptureQueriesContext(connection) as few:
            assert admin_client.get(where, query).status_code == 200
        for number in range(base + 2, base + 6):
            happen(number)
        with django_assert_num_queries(len(few)):
            admin_client.get(where, query)


def test_the_states_of_work_are_in_the_words_of_the_home_tab(admin_client, workspace):
    def states() -> list[str]:
        shown = admin_client.get(page(workspace)).content.decode()
        return re.findall(r'<span class="state">([^<]*)</span>', shown)[-2:]

    mention(workspace)
    made = run(task(workspace, state="active"), "100.000001")
    assert states() == ["answered", "answered"]
    TaskRun.objects.filter(pk=made.pk).update(state="paused")
    assert states() == ["paused until there are credits"] * 2

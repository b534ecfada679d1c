"""Caps of projects, users and runs within an organization's limit."""

from datetime import timedelta

import pytest
from django.utils import timezone

from billing.allowances.caps import is_known_user, set_cap
from billing.allowances.limits import set_limit
from billing.credits import MAXIMUM_MICRO
from billing.decisions.cap_usage import CapsInForce
from billing.decisions.timeline import load_timelines
from billing.ingestion import cap_counts
from billing.ingestion.ledger_rows import LedgerRow
from billing.ingestion.refunds import refund
from billing.models import AuditEntry, Cap, DecisionRecord, UsageEvent
from billing.organizations import create_project
from billing.sweep import sweep_due
from billing.verification.projections import differences
from billing.verification.rebuild import rebuild
from projects.change_feed import Change
from quota import gate
from quota.models import CapState, SetMember
from quota.resources import AI_CREDITS
from quota.state import ServiceQuestion, identify, service_fields, standings
from tests.billing.world import CREDIT, account_of, book, held, published, usage_event

pytestmark = pytest.mark.django_db
ANN, BEN = "slack:T1:U1", "slack:T1:U2"
GROUP = "gateway:epoch"


@pytest.fixture
def sibling(project):
    return create_project(project.organization, "Sibling")


def cap(project, scope, credits, subject=""):
    micro = None if credits is None else credits * CREDIT
    return set_cap(project.organization, AI_CREDITS, scope, micro, subject=subject)


def spend(project, credits, user=ANN, **fields):
    """Book a user's call that a gateway group held."""
    event = usage_event(project, f"{credits / 120:.10f}", distinct_id=user, **fields)
    [result] = book(held(event, credits * CREDIT))
    assert result.status == "accepted"
    return event


def refusal(project, user="", **asked):
    verdict = gate.check(project, distinct_id=user, **asked)
    return verdict.reason if verdict.limited else None


def scopes(project, user=""):
    """Return what the gateway gets about the caps that apply to a call."""
    standing = standings(identify(project)).resources[AI_CREDITS]
    return service_fields(standing, project.pk, ServiceQuestion(GROUP, user)).get("caps")


def test_a_project_at_its_cap_is_limited_and_its_siblings_are_not(project, sibling):
    set_limit(project.organization, AI_CREDITS, 1_000 * CREDIT)
    cap(project, "project", 24, str(project.pk))
    spend(project, 12)
    assert refusal(project) is None

    spend(project, 12)

    verdict = gate.check(project)
    assert (verdict.limited, verdict.reason) == (True, "project_cap_reached")
    assert verdict.limited_until == published(project.organization).resets_at
    assert refusal(sibling) is None
    limited = SetMember.objects.exclude(limited_until=None)
    assert [(row.project, row.reason) for row in limited] == [(project, "project_cap_reached")]


def test_a_user_at_their_cap_is_refused_and_others_are_not(project, sibling):
    cap(project, "user", 24)
    spend(project, 12)
    spend(sibling, 12)

    for each in (project, sibling):
        assert refusal(each, ANN) == "user_cap_reached"
        assert refusal(each, BEN) is None
        assert refusal(each) is None
    assert not SetMember.objects.exclude(limited_until=None).exists()


def test_a_named_user_can_have_a_different_cap_or_none(project):
    cap(project, "user", 12)
    cap(project, "user", 36, ANN)
    cap(project, "user", None, BEN)
    for user in (ANN, BEN, "slack:T1:U3"):
        spend(project, 24, user)

    assert refusal(project, ANN) is None
    assert refusal(project, BEN) is None
    assert refusal(project, "slack:T1:U3") == "user_cap_reached"


def test_a_cap_counts_what_was_used_before_it_was_set_and_lifts_when_it_is_raised(project):
    spend(project, 24)
    cap(project, "user", 24)
    assert refusal(project, ANN) == "user_cap_reached"

    cap(project, "user", 25)
    assert refusal(project, ANN) is None

    cap(project, "user", 24)
    cap(project, "user", None)
    assert refusal(project, ANN) is None


def test_a_run_is_refused_once_it_reached_the_cap_of_runs(project):
    cap(project, "run", 10)

    assert refusal(project, run_usage_micro=10 * CREDIT) == "run_cap_reached"
    assert refusal(project, run_usage_micro=10 * CREDIT - 1) is None


@pytest.mark.parametrize("scope", ["project", "user", "run"])
def test_a_cap_of_zero_refuses_before_any_usage(project, scope):
    cap(project, scope, 0)

    assert refusal(project, ANN) == f"{scope}_cap_reached"
    assert refusal(create_project(project.organization, "New"), ANN) == f"{scope}_cap_reached"


@pytest.mark.parametrize("scope", ["project", "user"])
def test_a_named_cap_of_zero_refuses_its_subject_before_any_usage(project, sibling, scope):
    cap(project, scope, 0, str(project.pk) if scope == "project" else ANN)

    assert refusal(project, ANN) == f"{scope}_cap_reached"
    assert refusal(*((sibling, ANN) if scope == "project" else (project, BEN))) is None


def test_a_cap_refuses_despite_a_soft_limit(project):
    set_limit(project.organization, AI_CREDITS, CREDIT, mode="soft")
    cap(project, "user", 12)
    spend(project, 12)

    assert refusal(project, BEN) is None
    assert refusal(project, ANN) == "user_cap_reached"


def test_no_work_is_started_with_too_little_left_of_a_cap(project, settings):
    settings.START_CREDITS = 2
    cap(project, "user", 12)
    spend(project, 11)

    assert refusal(project, ANN) is None
    assert refusal(project, ANN, to_start=True) == "insufficient_remaining"
    assert refusal(project, BEN, to_start=True) is None


def test_the_new_period_begins_with_the_whole_cap(project, monkeypatch):
    cap(project, "project", 12)
    cap(project, "user", 12)
    spend(project, 12)
    assert refusal(project, ANN) == "project_cap_reached"
    later = published(project.organization).resets_at + timedelta(seconds=1)
    monkeypatch.setattr(timezone, "now", lambda: later)
    version = account_of(project.organization).caps_version

    sweep_due()

    assert refusal(project, ANN) is None
    newer = account_of(project.organization).caps_version
    assert newer == version + 1, "a gateway counts again what is left of a newer version only"
    assert {row.usage_micro for row in CapState.objects.all()} == {0}
    assert list(differences(account_of(project.organization))) == []


def test_a_groups_own_bookings_change_neither_its_allotments_nor_the_feed(project):
    cap(project, "project", 100)
    cap(project, "user", 50, ANN)
    before, told = scopes(project, ANN), Change.objects.count()

    spend(project, 12)

    after = scopes(project, ANN)
    assert Change.objects.count() == told
    assert after["version"] == before["version"]
    assert after["scopes"] == {
        scope: {
            "cap_micro": credits * CREDIT,
            "allotment_micro": credits * CREDIT,
            "booked_micro": 12 * CREDIT,
        }
        for scope, credits in ((f"project:{project.pk}", 100), (f"user:{ANN}", 50))
    }


def test_any_other_change_of_what_a_cap_has_left_is_published(project):
    cap(project, "user", 50)
    event = spend(project, 12)
    version, told = scopes(project, ANN)["version"], Change.objects.count()

    refund(UsageEvent.objects.get(pk=event["uuid"]))

    caps = scopes(project, ANN)
    assert caps["version"] > version
    assert Change.objects.count() != told
    assert caps["scopes"][f"user:{ANN}"] == {
        "cap_micro": 50 * CREDIT,
        "allotment_micro": 62 * CREDIT,
        "booked_micro": 12 * CREDIT,
    }


def test_a_reached_cap_is_published_once_whoever_booked(project):
    """The group's counter misses calls that were under way when the cap was set."""
    cap(project, "user", 24)
    version = scopes(project, ANN)["version"]
    spend(project, 12)
    assert scopes(project, ANN)["version"] == version

    spend(project, 12)

    reached = scopes(project, ANN)["version"]
    assert reached > version
    spend(project, 1)
    assert scopes(project, ANN)["version"] == reached


def test_the_gateway_gets_caps_only_if_there_are_any(project, stranger):
    assert scopes(project, ANN) is None
    cap(project, "run", 5)
    cap(project, "user", 7)

    told = scopes(project)
    assert (told["run_micro"], told["users"], told["scopes"]) == (5 * CREDIT, True, {})
    fresh = {"cap_micro": 7 * CREDIT, "allotment_micro": 7 * CREDIT, "booked_micro": 0}
    assert scopes(project, BEN)["scopes"] == {f"user:{BEN}": fresh}
    assert scopes(stranger, BEN) is None


def test_a_late_event_of_a_closed_period_does_not_count_toward_the_current_cap(project):
    cap(project, "user", 12)

    spend(project, 12, at=timezone.now() - timedelta(days=35))

    assert refusal(project, ANN) is None
    assert list(differences(account_of(project.organization))) == []


def test_reaching_or_lifting_a_cap_records_a_decision_with_its_inputs(project):
    cap(project, "user", 12)
    spend(project, 12)
    cap(project, "user", 13)

    lifted, reached = DecisionRecord.objects.filter(scope="user")
    assert (reached.subject, reached.state, reached.reason) == (ANN, "limited", "user_cap_reached")
    assert reached.inputs["caps"] == [
        {"scope": "user", "subject": ANN, "cap_micro": 12 * CREDIT, "usage_micro": 12 * CREDIT}
    ]
    assert (lifted.state, lifted.reason) == ("ok", "")
    assert (reached.previous_state, lifted.previous_state) == ("ok", "limited")


def test_a_rebuild_gives_the_same_counts_and_repairs_tampering(project, sibling):
    cap(project, "project", 100)
    cap(project, "user", 50, ANN)
    for each in (project, sibling):
        spend(each, 12)
        spend(each, 6, BEN)
    account = account_of(project.organization)
    kept = set(CapState.objects.values_list("scope", "subject", "cap_micro", "usage_micro"))
    CapState.objects.filter(scope="user").update(usage_micro=1)
    assert len(list(differences(account))) == 1

    rebuild(account.pk)

    assert set(CapState.objects.values_list("scope", "subject", "cap_micro", "usage_micro")) == kept
    assert list(differences(account_of(project.organization))) == []


def test_the_audit_trail_says_who_set_a_cap_and_why(project):
    set_cap(project.organization, AI_CREDITS, "run", CREDIT, actor="ann", reason="runaway runs")

    entry = AuditEntry.objects.get(action="cap_set")
    assert (entry.actor, entry.reason) == ("ann", "runaway runs")
    assert entry.details["cap_micro"] == CREDIT


@pytest.mark.parametrize(
    "wrong",
    [
        ("team", 1, ""),
        ("user", -1, ANN),
        ("run", 1, "c9c4e0b1-3f38-4d5d-9b6a-6a1c0f1f6b52"),
        ("project", 1, "none"),
        ("project", 1, "9" * 19),
        ("project", 1, "9" * 200),
        ("project", 1, "١"),
        ("user", 1, "U\n1"),
        ("user", 1, "U" * 201),
    ],
)
def test_an_invalid_cap_is_refused(project, wrong):
    with pytest.raises(ValueError, match=r"cap|characters|runs|no project"):
        cap(project, *wrong)
    assert not Cap.objects.exists()


def test_a_user_is_known_by_usage_of_the_account_or_by_a_cap(project, stranger):
    spend(stranger, 12, ANN)
    cap(stranger, "user", 12, BEN)
    account = account_of(project.organization)
    assert not is_known_user(account, ANN)
    assert not is_known_user(account, BEN)
    spend(project, 12, ANN)
    cap(project, "user", 12, BEN)
    assert is_known_user(account, ANN)
    assert is_known_user(account, BEN)


def test_a_cap_may_be_as_large_as_a_limit(project):
    made = set_cap(project.organization, AI_CREDITS, "run", MAXIMUM_MICRO)
    for wrong in (-1, MAXIMUM_MICRO + 1):
        with pytest.raises(ValueError, match="credits"):
            set_cap(project.organization, AI_CREDITS, "run", wrong)
    assert made == Cap.objects.get()
    assert made.cap_micro == MAXIMUM_MICRO


@pytest.mark.parametrize(
    ("caps", "any_user"),
    [
        (CapsInForce(), False),
        (CapsInForce(each={"user": 5}), True),
        (CapsInForce(each={"user": None}), False),
        (CapsInForce(named={("user", ANN): 5}), True),
        (CapsInForce(named={("user", ANN): None}), False),
        (CapsInForce(named={("project", "7"): 5}), False),
    ],
)
def test_users_are_capped_if_all_of_them_or_one_has_a_cap(caps, any_user):
    assert caps.caps_any("user") is any_user


def test_a_cap_may_name_a_user_of_two_hundred_characters(project):
    cap(project, "user", 1, "U" * 200)
    assert Cap.objects.get().subject == "U" * 200


def test_an_event_at_the_first_instant_of_a_period_counts_in_it(project):
    cap(project, "user", 12)

    spend(project, 12, at=account_of(project.organization).period_start)

    assert refusal(project, ANN) == "user_cap_reached"


def test_an_event_at_the_end_of_the_current_period_does_not_count_in_it(project):
    cap(project, "user", 12)
    account = account_of(project.organization)
    [timeline] = load_timelines([account.pk]).values()
    period = timeline.period_at(timezone.now())
    book(usage_event(project, distinct_id=ANN))
    row = LedgerRow(
        **UsageEvent.objects.values(*LedgerRow._fields).get() | {"occurred_at": period.end}
    )

    cap_counts.count_rows([account], [row], {account.pk: period})

    assert CapState.objects.get().usage_micro == 12 * CREDIT, "only the event before"


def test_versions_of_caps_follow_each_other(project):
    cap(project, "user", 12)
    assert account_of(project.organization).caps_version == 1
    spend(project, 12)
    assert account_of(project.organization).caps_version == 2, "it is reached"


def test_a_project_is_capped_by_its_number_in_canonical_form(project):
    """Usage is counted for "7", so a cap of "07" would have no effect."""
    with pytest.raises(ValueError, match="has no project"):
        cap(project, "project", 1, f"0{project.pk}")


def test_a_project_of_another_organization_cannot_be_capped(project, stranger):
    with pytest.raises(ValueError, match="has no project"):
        cap(project, "project", 1, str(stranger.pk))

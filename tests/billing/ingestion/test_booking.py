"""Every event is booked once, on the right account, or quarantined if it can't be booked."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError
from django.utils import timezone

from billing import retries
from billing.allowances.grants import grant_credits
from billing.allowances.limits import set_limit
from billing.decisions.timeline import Timeline
from billing.ingestion import events, ledger, ledger_rows, quarantine
from billing.ingestion.events import (
    MAXIMUM_DEBIT_MICRO,
    NEWEST,
    OLDEST,
    QuarantineReason,
    UnbookableEvent,
)
from billing.ingestion.ledger_rows import LedgerRow
from billing.models import Account, AccountGroup, QuarantinedEvent, UsageEvent, UsageTotal
from billing.organizations import create_project
from projects.models import Change, Organization, Project
from quota.resources import AI_CREDITS, POSTHOG_CODE_CREDITS
from tests.billing.world import CREDIT, account_of, book, held, published, usage_event, used

pytestmark = pytest.mark.django_db


def statuses(*items):
    return [result.status for result in book(*items)]


def reasons(*items):
    return [result.reason for result in book(*items)]


@pytest.mark.case("C3")
def test_a_ledger_row_has_every_field_of_its_event(project):
    event = usage_event(project, "0.1034", at=datetime.now(UTC) - timedelta(seconds=5))

    [result] = book(event)

    row = UsageEvent.objects.get()
    assert (result.uuid, result.status, result.reason) == (event["uuid"], "accepted", None)
    assert str(row.uuid) == event["uuid"]
    assert row.account == account_of(project.organization)
    assert (row.project, row.kind, row.adjusts) == (project, "usage", None)
    assert row.occurred_at.isoformat() == event["timestamp"]
    assert row.booked_at > row.occurred_at
    assert (row.cost_usd, row.credits_micro) == ("0.1034", 12_408_000)
    assert (row.product, row.model, row.provider) == ("slack_app", "claude-sonnet-4-5", "anthropic")
    assert (row.input_tokens, row.output_tokens, row.latency_ms) == (1200, 300, 1250)
    assert row.cache_read_input_tokens == 0, "none were read, which is not unknown"
    assert (row.billable, row.is_stream, row.is_error, row.is_estimated) == (
        True,
        True,
        False,
        False,
    )
    assert (row.http_status, row.service_tier, row.trace_id) == (200, "standard", "trace-1")
    assert (row.group, row.debited_micro) == ("", 0)
    assert str(row.task_run_id) == event["properties"]["task_run_id"]
    assert row.price_version == "genai-prices 0.0.40"


def test_usage_that_was_estimated_is_marked(project):
    book(usage_event(project, properties={"$ai_usage_estimated": True}))
    assert UsageEvent.objects.get().is_estimated


def test_an_organization_without_accounts_gets_them_when_usage_is_booked(db):
    organization = Organization.objects.create(name="Imported")
    project = Project.objects.create(organization=organization, name="Main")
    assert not Account.objects.filter(organization=organization).exists()

    assert statuses(usage_event(project, "0.10")) == ["accepted"]

    assert used(organization) == 12 * CREDIT


def test_usage_before_and_after_the_end_of_a_period_is_counted_where_it_occurred(project):
    start = account_of(project.organization).period_start
    times = [start, start - timedelta(seconds=1), start + timedelta(seconds=1)]
    book(*(usage_event(project, at=at) for at in times))
    totals = UsageTotal.objects.order_by("starts_at").values_list("ends_at", "usage_micro")
    assert totals[0] == (start, 12 * CREDIT)
    assert sum(micro for _, micro in totals) == 36 * CREDIT


def test_usage_at_the_end_of_a_stretch_counts_in_the_next_one(project):
    start = account_of(project.organization).period_start
    book(*(usage_event(project, at=at) for at in (start - timedelta(seconds=1), start)))
    totals = UsageTotal.objects.order_by("starts_at").values_list("ends_at", "usage_micro")
    assert totals[0] == (start, 12 * CREDIT)
    assert totals[1][1] == 12 * CREDIT


def test_usage_after_an_event_that_nobody_pays_counts(project):
    unpaid = usage_event(project, properties={"$ai_billable": False})
    assert statuses(unpaid, usage_event(project)) == ["accepted", "accepted"]
    assert used(project.organization) == 12 * CREDIT


def test_inserted_rows_have_all_columns_of_the_ledger():
    columns = {field.attname for field in UsageEvent._meta.concrete_fields}

    assert set(LedgerRow._fields) == columns


@pytest.mark.case("C7")
def test_the_same_event_again_is_a_duplicate_and_counts_once(project):
    event = usage_event(project)

    assert statuses(event, event) == ["accepted", "duplicate"]
    assert statuses(event) == ["duplicate"]
    assert UsageEvent.objects.count() == 1
    assert used(project.organization) == 12 * CREDIT


@pytest.mark.case("C7")
def test_an_event_that_is_delivered_again_after_years_is_a_duplicate(project, monkeypatch):
    event = usage_event(project)
    book(event)
    years_later = timezone.now() + timedelta(days=1000)
    monkeypatch.setattr(timezone, "now", lambda: years_later)

    assert statuses(event) == ["duplicate"]
    assert statuses(event | {"distinct_id": "another"}) == ["conflict"]
    assert UsageEvent.objects.count() == 1


def test_events_after_a_duplicate_are_booked(project):
    event, later = usage_event(project), usage_event(project)
    book(event)

    assert statuses(event, later) == ["duplicate", "accepted"]
    assert used(project.organization) == 24 * CREDIT


def test_a_debit_for_what_nobody_pays_is_quarantined(project):
    unpaid = usage_event(project, properties={"$ai_billable": False})

    assert reasons(held(unpaid, 1)) == ["debit_invalid"]
    assert statuses(held(unpaid, 0)) == ["accepted"]


def test_a_duplicate_changes_no_version_and_publishes_nothing(project):
    event = usage_event(project)
    [first] = book(event)
    told = Change.objects.count()

    [again] = book(event)

    assert again.version == first.version == published(project.organization).version
    assert Change.objects.count() == told


def test_the_order_of_keys_does_not_change_the_payload(project):
    event = usage_event(project)
    reordered = dict(reversed(event.items())) | {
        "properties": dict(reversed(event["properties"].items()))
    }

    assert statuses(event, reordered) == ["accepted", "duplicate"]


@pytest.mark.case("C7")
def test_the_same_uuid_with_another_payload_is_a_quarantined_conflict(project):
    event = usage_event(project)
    other = usage_event(project, "0.20", uuid=event["uuid"])

    assert statuses(event) == ["accepted"]
    [conflict, again] = book(other, event)
    assert (conflict.status, conflict.reason) == ("conflict", "conflict")
    assert (again.status, again.reason) == ("duplicate", None)
    assert used(project.organization) == 12 * CREDIT
    assert QuarantinedEvent.objects.get().reason == "conflict"


def test_a_conflict_within_one_batch_lets_the_first_win(project):
    event = usage_event(project)
    other = usage_event(project, "0.20", uuid=event["uuid"])

    assert statuses(event, other) == ["accepted", "conflict"]
    assert used(project.organization) == 12 * CREDIT


def test_a_broken_payload_under_a_booked_uuid_is_a_conflict(project):
    event = usage_event(project)
    broken = usage_event(project, "free", uuid=event["uuid"])

    assert statuses(event, broken) == ["accepted", "conflict"]


def test_one_bad_item_does_not_keep_the_others_from_being_booked(project):
    good, other = usage_event(project), usage_event(project)

    assert statuses(good, None, usage_event(project, "NaN"), 7, other) == [
        "accepted",
        "quarantined",
        "quarantined",
        "quarantined",
        "accepted",
    ]
    assert used(project.organization) == 24 * CREDIT


def test_an_unbookable_event_is_quarantined_once_however_often_it_arrives(project):
    broken = usage_event(project, "NaN")

    assert statuses(broken, broken) == ["quarantined", "quarantined"]
    assert statuses(broken) == ["quarantined"]
    kept = QuarantinedEvent.objects.get()
    assert (kept.event_uuid, kept.reason, kept.state) == (broken["uuid"], "cost_invalid", "open")


def test_a_repaired_event_is_booked_after_the_broken_one_was_quarantined(project):
    broken = usage_event(project, properties={"project_id": None})
    repaired = broken | {"properties": broken["properties"] | {"project_id": project.pk}}

    assert statuses(broken, repaired) == ["quarantined", "accepted"]


@pytest.mark.case("C5")
@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"project_id": None}, "project_missing"),
        ({"project_id": ""}, "project_missing"),
        ({"project_id": 0}, "project_invalid"),
        ({"project_id": -1}, "project_invalid"),
        ({"project_id": "abc"}, "project_invalid"),
        ({"project_id": 1.5}, "project_invalid"),
        ({"project_id": True}, "project_invalid"),
        ({"project_id": [1]}, "project_invalid"),
        ({"project_id": 10**30}, "project_invalid"),
        ({"project_id": 999_999_999}, "project_unknown"),
        ({"organization_id": str(uuid.UUID(int=7))}, "organization_mismatch"),
        ({"organization_id": "Acme"}, "organization_mismatch"),
        ({"ai_product": "chess"}, "product_unknown"),
        ({"ai_product": None}, "product_unknown"),
        ({"ai_product": ["slack_app"]}, "product_unknown"),
        ({"$ai_billable": "false"}, "billable_invalid"),
        ({"$ai_billable": 0}, "billable_invalid"),
        ({"$ai_total_cost_usd": None}, "cost_missing"),
        ({"$ai_total_cost_usd": "-0.01"}, "cost_invalid"),
        ({"$ai_total_cost_usd": "1e999999"}, "cost_invalid"),
        ({"$ai_total_cost_usd": True}, "cost_invalid"),
    ],
)
def test_an_invalid_field_that_affects_money_quarantines_the_event(project, properties, reason):
    event = usage_event(project, properties=properties)

    assert reasons(event) == [reason]
    assert not UsageEvent.objects.exists()


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        ({"uuid": None}, "uuid_invalid"),
        ({"uuid": 7}, "uuid_invalid"),
        ({"uuid": "{0b6f7f9e-3c7e-4d50-9f0e-6d1f7a6a3f11}"}, "uuid_invalid"),
        ({"event": "$pageview"}, "event_unknown"),
        ({"timestamp": None}, "timestamp_invalid"),
        ({"timestamp": 1_764_000_000}, "timestamp_invalid"),
        ({"timestamp": "yesterday"}, "timestamp_invalid"),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, "timestamp_too_old"),
        ({"timestamp": "9999-12-31T23:59:59-14:00"}, "timestamp_in_future"),
        ({"properties": None}, "not_an_event"),
        ({"properties": []}, "not_an_event"),
        ({"account": "elsewhere:ai_credits"}, "account_mismatch"),
        ({"account": 7}, "account_mismatch"),
        ({"group": "gateway:epoch"}, "debit_invalid"),
        ({"group": "gateway:epoch", "debited_micro": "5"}, "debit_invalid"),
        ({"group": "gateway:epoch", "debited_micro": True}, "debit_invalid"),
        ({"group": "gateway:epoch", "debited_micro": -5}, "debit_invalid"),
        ({"group": "g", "debited_micro": MAXIMUM_DEBIT_MICRO + 1}, "debit_invalid"),
        ({"group": "ü", "debited_micro": 5}, "group_invalid"),
        ({"group": "g" * 101, "debited_micro": 5}, "group_invalid"),
        ({"group": "g\0", "debited_micro": 5}, "group_invalid"),
        ({"group": 7, "debited_micro": 5}, "group_invalid"),
        ({"debited_micro": 5}, "group_invalid"),
        ({"hold_id": "mine"}, "group_invalid"),
    ],
)
def test_an_event_with_an_invalid_envelope_is_quarantined(project, envelope, reason):
    assert reasons(usage_event(project) | envelope) == [reason]
    assert not UsageEvent.objects.exists()


def test_the_longest_group_and_the_largest_debit_are_booked(project):
    event = usage_event(project) | {"group": "g" * 100, "debited_micro": MAXIMUM_DEBIT_MICRO}
    assert statuses(event) == ["accepted"]
    row = UsageEvent.objects.get()
    assert (row.group, row.debited_micro) == ("g" * 100, MAXIMUM_DEBIT_MICRO)


@pytest.mark.parametrize("written", ["2026-03-01T12:00:00", "2026-03-01T14:00:00+02:00"])
def test_a_time_without_a_zone_is_in_utc(written):
    event = events.read(
        usage_event(Project(pk=1, organization_id=uuid.UUID(int=7)), timestamp=written),
        datetime(2026, 3, 1, 12, tzinfo=UTC),
    )
    assert event.occurred_at == datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("off", "reason"),
    [
        (-OLDEST, None),
        (-OLDEST - timedelta.resolution, "timestamp_too_old"),
        (NEWEST, None),
        (NEWEST + timedelta.resolution, "timestamp_in_future"),
    ],
)
def test_a_time_is_taken_from_the_oldest_to_the_newest_that_is_plausible(off, reason):
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    item = usage_event(Project(pk=1, organization_id=uuid.UUID(int=7)), at=now + off)
    if reason is None:
        assert events.read(item, now).occurred_at == now + off
    else:
        with pytest.raises(UnbookableEvent) as raised:
            events.read(item, now)
        assert raised.value.reason == reason


def test_invalid_descriptive_fields_do_not_stop_a_booking(project):
    junk = {
        "$ai_model": "x" * 5000,
        "$ai_provider": "nul\0 and a lone \ud800 surrogate",
        "$ai_input_tokens": "many",
        "$ai_output_tokens": 2**70,
        "$ai_cache_read_input_tokens": -1,
        "$ai_latency": 1e300,
        "$ai_http_status": "200",
        "$ai_trace_id": {"deep": ["er"]},
        "$ai_service_tier": 5,
        "task_run_id": "not a uuid",
        "$ai_is_error": "yes",
        "unheard_of": [1, 2, 3],
    }

    assert statuses(usage_event(project, properties=junk, distinct_id="\0")) == ["accepted"]
    row = UsageEvent.objects.get()
    assert row.model == "x" * 200
    assert row.provider == "nul\ufffd and a lone ? surrogate"
    assert row.input_tokens is row.output_tokens is row.cache_read_input_tokens is None
    assert row.latency_ms is row.http_status is row.task_run_id is None
    assert row.trace_id == row.service_tier == ""
    assert row.is_error is False


def test_texts_are_cut_to_their_columns(project):
    longest = {
        "$ai_model": 200,
        "$ai_provider": 100,
        "$ai_trace_id": 200,
        "$ai_service_tier": 40,
        "price_version": 100,
    }
    texts = {name: "x" * (length + 50) for name, length in longest.items()}
    book(usage_event(project, properties=texts, distinct_id="x" * 250))
    row = UsageEvent.objects.get()
    stored = (row.model, row.provider, row.trace_id, row.service_tier, row.price_version)
    assert [len(text) for text in stored] == list(longest.values())
    assert len(row.distinct_id) == 200


def test_why_an_event_was_quarantined_is_cut_to_its_column(project):
    book(usage_event(project, properties={"ai_product": "x" * 150}))
    assert QuarantinedEvent.objects.get().detail == "x" * 100
    longest = QuarantinedEvent._meta.get_field("detail").max_length
    reason = QuarantineReason.ACCOUNT_UNDECIDABLE
    assert len(UnbookableEvent(reason, "x" * 999).detail) == longest


def test_only_the_first_event_of_a_stretch_looks_for_it(project, monkeypatch):
    start = account_of(project.organization).period_start
    stretch_at, asked = Timeline.stretch_at, []

    def looked_up(self, instant):
        asked.append(instant)
        return stretch_at(self, instant)

    monkeypatch.setattr(Timeline, "stretch_at", looked_up)
    numbers = []
    for count in (1, 3):
        asked.clear()
        book(*(usage_event(project, at=start + timedelta(seconds=n)) for n in range(count)))
        numbers.append(len(asked))
    assert numbers[0] == numbers[1]
    asked.clear()
    book(*(usage_event(project, at=at) for at in (start + timedelta(seconds=1), start)))
    assert len(asked) == numbers[0], "the stretch begins with its start"


class TestProducts:
    @pytest.mark.parametrize("product", ["slack_app", "slack_app_routing", "slack-posthog-code"])
    def test_slack_products_are_paid_from_ai_credits(self, project, product):
        book(usage_event(project, properties={"ai_product": product}))

        assert used(project.organization, AI_CREDITS) == 12 * CREDIT
        assert UsageEvent.objects.get().product in ("slack_app", "slack_app_routing")

    def test_desktop_clients_are_paid_from_their_own_bucket_without_markup(self, project):
        book(usage_event(project, properties={"ai_product": "posthog_code"}))

        assert used(project.organization, POSTHOG_CODE_CREDITS) == 10 * CREDIT
        assert used(project.organization, AI_CREDITS) == 0

    @pytest.mark.parametrize("properties", [{"ai_product": "llm_gateway"}, {"$ai_billable": False}])
    def test_an_event_that_nobody_pays_is_booked_without_credits(self, project, properties):
        assert statuses(usage_event(project, properties=properties)) == ["accepted"]

        row = UsageEvent.objects.get()
        assert (row.account, row.credits_micro, row.billable) == (None, 0, False)
        assert row.cost_usd == "0.10"
        assert published(project.organization).usage_micro is None

    @pytest.mark.case("C4")
    def test_a_failed_call_is_billable_and_costs_what_the_provider_charged(self, project):
        failed = {"$ai_is_error": True, "$ai_http_status": 529}
        book(usage_event(project, "0", properties=failed))

        row = UsageEvent.objects.get()
        assert (row.is_error, row.billable, row.credits_micro) == (True, True, 0)
        assert published(project.organization).usage_micro == 0


class TestPublication:
    def test_the_event_that_reaches_the_limit_limits_in_the_same_transaction(self, project):
        set_limit(project.organization, AI_CREDITS, 24 * CREDIT)

        book(usage_event(project))
        assert not published(project.organization).limited
        [result] = book(usage_event(project))

        state = published(project.organization)
        assert (state.limited, state.reason, state.version) == (
            True,
            "limit_reached",
            result.version,
        )

    @pytest.mark.case("D7")
    def test_usage_of_all_projects_adds_up(self, project):
        set_limit(project.organization, AI_CREDITS, 24 * CREDIT)
        sibling = create_project(project.organization, "Sibling")

        book(usage_event(project), usage_event(sibling))

        assert published(project.organization).limited

    def test_another_organization_is_not_affected(self, project, stranger):
        for each in (project, stranger):
            set_limit(each.organization, AI_CREDITS, 12 * CREDIT)

        book(usage_event(project))

        assert published(project.organization).limited
        assert not published(stranger.organization).limited
        assert published(stranger.organization).usage_micro is None


class TestGroups:
    """A gateway group's own bookings don't change its allotment."""

    def test_a_booking_of_the_group_changes_neither_its_allotment_nor_the_feed(self, project):
        set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
        book(held(usage_event(project), 12 * CREDIT))
        told = Change.objects.count()

        book(held(usage_event(project), 12 * CREDIT))

        state = published(project.organization)
        assert state.booked == {"gateway:epoch": 24 * CREDIT}
        assert state.allotment_micro == 100 * CREDIT
        assert state.remaining_micro == 76 * CREDIT
        assert Change.objects.count() == told

    def test_usage_without_a_hold_shrinks_the_allotment_and_is_published(self, project):
        set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
        told = Change.objects.count()

        book(usage_event(project))

        assert published(project.organization).allotment_micro == 88 * CREDIT
        assert Change.objects.count() > told

    def test_a_quarantined_event_is_not_booked_on_the_group(self, project):
        book(held(usage_event(project, "NaN"), 12 * CREDIT))

        assert not AccountGroup.objects.exists()

    def test_a_correction_replaces_an_estimate_with_the_true_cost(self, project):
        set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
        estimate = held(usage_event(project, "0.50"), 60 * CREDIT)
        correction = held(usage_event(project, "-0.40"), -48 * CREDIT)
        correction["hold_id"] = estimate["uuid"]

        assert statuses(correction, estimate) == ["accepted", "accepted"]

        row = UsageEvent.objects.get(kind="correction")
        assert str(row.adjusts) == estimate["uuid"]
        assert used(project.organization) == 12 * CREDIT
        assert published(project.organization).booked == {"gateway:epoch": 12 * CREDIT}

    def test_a_correction_of_another_accounts_event_is_quarantined(self, project, stranger):
        theirs = held(usage_event(stranger), 12 * CREDIT)
        correction = held(usage_event(project, "-0.10"), -12 * CREDIT)
        correction["hold_id"] = theirs["uuid"]
        book(theirs)

        [result] = book(correction)

        assert (result.status, result.reason) == ("quarantined", "account_mismatch")
        assert QuarantinedEvent.objects.get().awaits is None, "its event is there"
        with pytest.raises(UnbookableEvent):
            quarantine.book_now(QuarantinedEvent.objects.get())
        assert used(stranger.organization) == 12 * CREDIT
        assert not UsageEvent.objects.filter(kind="correction").exists()


class TestLateEvents:
    @pytest.mark.case("C8")
    def test_a_late_event_counts_in_the_period_in_which_it_occurred(self, project):
        set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
        book(usage_event(project, "0.01"))
        before = account_of(project.organization).period_start - timedelta(hours=1)

        book(usage_event(project, at=before))

        late = UsageEvent.objects.get(occurred_at=before)
        assert late.kind == "late"
        state = published(project.organization)
        assert (state.limited, state.usage_micro) == (False, 1_200_000)
        assert used(project.organization) == 13_200_000

    def test_a_late_event_from_before_the_first_limit_spends_no_grant(self, project):
        organization = project.organization
        set_limit(organization, AI_CREDITS, 0)
        before = account_of(organization).period_start - timedelta(days=3)
        grant_credits(organization, AI_CREDITS, 30 * CREDIT, starts_at=before - timedelta(days=1))

        book(usage_event(project, at=before))

        # Before its first limit was set, the account was unlimited, so nothing spent the grant.
        assert published(organization).remaining_micro == 30 * CREDIT
        book(usage_event(project))
        assert published(organization).remaining_micro == 18 * CREDIT

    @pytest.mark.case("C8")
    def test_an_event_thirty_five_days_late_is_accepted(self, project):
        set_limit(project.organization, AI_CREDITS, 12 * CREDIT)
        old = timezone.now() - timedelta(days=35)

        assert statuses(usage_event(project, at=old)) == ["accepted"]

        late = UsageEvent.objects.get()
        assert (late.kind, late.occurred_at, late.credits_micro) == ("late", old, 12 * CREDIT)
        assert not published(project.organization).limited


def test_a_result_has_the_version_of_its_account_if_it_has_one(project):
    [booked, unbilled, lost] = book(
        usage_event(project),
        usage_event(project, properties={"ai_product": "llm_gateway"}),
        usage_event(project, properties={"project_id": None}),
    )

    assert booked.version == account_of(project.organization).version
    assert unbilled.version is lost.version is None


def test_a_batch_for_many_accounts_costs_the_same_number_of_queries(
    project, stranger, django_assert_max_num_queries
):
    set_limit(project.organization, AI_CREDITS, 100 * CREDIT)
    set_limit(stranger.organization, AI_CREDITS, 100 * CREDIT)
    batch = [held(usage_event(each), CREDIT) for each in (project, stranger) for _ in range(100)]

    with django_assert_max_num_queries(33):
        book(*batch)


def test_a_writer_that_loses_the_race_for_an_event_finds_a_duplicate(project, monkeypatch):
    event = usage_event(project)
    insert = ledger_rows.insert
    attempts = []

    def insert_after_somebody_else(rows):
        attempts.append(rows)
        if len(attempts) == 1:
            raise IntegrityError("duplicate key value violates unique constraint")
        insert(rows)

    monkeypatch.setattr(ledger, "insert", insert_after_somebody_else)

    assert statuses(event) == ["accepted"]
    assert len(attempts) == 2
    assert used(project.organization) == 12 * CREDIT


def test_a_race_that_is_always_lost_raises_the_database_error(project, monkeypatch):
    monkeypatch.setattr(retries, "ATTEMPTS", 2)

    def always(rows):
        raise IntegrityError("duplicate key")

    monkeypatch.setattr(ledger, "insert", always)

    with pytest.raises(IntegrityError):
        book(usage_event(project))
    assert not UsageTotal.objects.exists()
    assert not Account.objects.filter(booked=True).exists()

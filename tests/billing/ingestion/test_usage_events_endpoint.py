"""`POST /api/usage_events/` answers any body clearly, and never books half of an event."""

import gzip
import io
import json
import threading
from typing import ClassVar

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from billing import metrics
from billing.ingestion import ledger, quarantine, views
from billing.ingestion.batches import (
    MAXIMUM_BYTES,
    MAXIMUM_DISCARDED,
    BatchParser,
    BatchTooLarge,
)
from billing.ingestion.events import NestedTooDeeply
from billing.models import QuarantinedEvent, UsageEvent, UsageTotal
from billing.retries import DatabaseBusy
from projects.authentication.credentials import issue_personal_api_key
from projects.principal import READ_SCOPES
from tests.billing.world import CREDIT, SERVICE, account_of, usage_event, used

pytestmark = pytest.mark.django_db
GZIP = {"HTTP_CONTENT_ENCODING": "gzip"}
NOT_JSON = "The body is not JSON in UTF-8."
NO_BATCH = 'The body must be {"batch": [event, …]} or [event, …].'
TOO_DEEP = "The JSON is nested too deeply."


@pytest.mark.case("C7")
def test_every_item_is_answered_in_the_order_sent(project, deliveries):
    event = usage_event(project)
    broken = usage_event(project, "NaN")

    response = deliveries.post({"batch": [event, broken, None, event]})

    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    version = response.json()["results"][0]["version"]
    assert isinstance(version, int)
    assert response.json() == {
        "results": [
            {"uuid": event["uuid"], "status": "accepted", "reason": None, "version": version},
            {
                "uuid": broken["uuid"],
                "status": "quarantined",
                "reason": "cost_invalid",
                "version": None,
            },
            {"uuid": None, "status": "quarantined", "reason": "not_an_event", "version": None},
            {"uuid": event["uuid"], "status": "duplicate", "reason": None, "version": version},
        ]
    }


def test_a_bare_list_and_an_empty_batch_are_batches(project, deliveries):
    listed = deliveries.post([usage_event(project)])

    assert [result["status"] for result in listed.json()["results"]] == ["accepted"]
    assert deliveries.post([]).json() == deliveries.post({"batch": []}).json() == {"results": []}


def test_a_gzipped_batch_is_unpacked(project, deliveries):
    body = gzip.compress(json.dumps({"batch": [usage_event(project)]}).encode())

    assert deliveries.post(body, **GZIP).json()["results"][0]["status"] == "accepted"


def test_a_number_is_never_read_as_a_float(project, deliveries):
    event = json.dumps({"batch": [usage_event(project, "COST")]})

    deliveries.post(event.replace('"COST"', "0.1000000000000000055511151231257827"))

    assert UsageEvent.objects.get().cost_usd == "0.1000000000000000055511151231257827"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("", "The body is empty."),
        ("{bad", NOT_JSON),
        ("null", NO_BATCH),
        ("7", NO_BATCH),
        ('"batch"', NO_BATCH),
        ("{}", NO_BATCH),
        ('{"batch": {}}', NO_BATCH),
        ('{"batch": null}', NO_BATCH),
        ("[1,]", NOT_JSON),
        (b"\xff\xfe", NOT_JSON),
        (b"\xef\xbb\xbf[]", NOT_JSON),
        ("[" * 100_000, TOO_DEEP),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, TOO_DEEP),
    ],
)
def test_an_invalid_batch_is_400(deliveries, body, detail):
    response = deliveries.post(body)

    assert (response.status_code, response.json()["detail"]) == (400, detail)


@pytest.mark.parametrize(
    "item",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "9" * 6000,
        "1e999999",
        "1e9999999999999999999",
        "-0.0",
        '"\\ud800\\u0000"',
        "true",
        '{"uuid": "\\ud800", "properties": {"\\u0000": "\\udfff"}}',
        '{"uuid": ' + "9" * 5000 + "}",
        "[" * 600 + "]" * 600,
    ],
)
def test_an_item_of_any_shape_is_quarantined_and_can_be_read_again(project, deliveries, item):
    good = json.dumps(usage_event(project))

    response = deliveries.post(f'{{"batch": [{item}, {good}]}}')

    assert response.status_code == 200
    assert [result["status"] for result in response.json()["results"]] == [
        "quarantined",
        "accepted",
    ]
    kept = QuarantinedEvent.objects.get()
    json.loads(kept.payload)
    assert kept.payload.isascii()


class Body(io.BytesIO):
    """A request, as far as the parser knows it."""

    META: ClassVar = {}


class TestSize:
    def test_a_thousand_events_are_a_batch_and_one_more_is_not(self, project, deliveries):
        event = usage_event(project)

        assert deliveries.post([event] * 1000).status_code == 200
        assert deliveries.post([event] * 1001).status_code == 413

    def test_more_than_five_megabytes_are_refused(self, deliveries):
        fits = b"[" + b" " * (MAXIMUM_BYTES - 2) + b"]"

        assert deliveries.post(fits).status_code == 200
        assert deliveries.post(fits + b" ").status_code == 413
        assert deliveries.post(gzip.compress(fits), **GZIP).status_code == 200
        assert deliveries.post(gzip.compress(fits + b" "), **GZIP).status_code == 413

    @pytest.mark.parametrize("excess", [1, MAXIMUM_BYTES, MAXIMUM_DISCARDED, MAXIMUM_DISCARDED + 1])
    def test_the_rest_of_a_body_is_read_before_it_is_refused_but_not_without_end(self, excess):
        body = Body(bytes(MAXIMUM_BYTES + 1 + excess))

        with pytest.raises(BatchTooLarge):
            BatchParser().parse(body)

        assert body.tell() == MAXIMUM_BYTES + 1 + min(excess, MAXIMUM_DISCARDED)

    def test_a_gzip_bomb_is_not_unpacked(self, deliveries):
        bomb = gzip.compress(b"[" + b" " * 20_000_000 + b"]")

        assert len(bomb) < 100_000
        assert deliveries.post(bomb, **GZIP).status_code == 413

    @pytest.mark.parametrize(
        "body",
        [b"[]", gzip.compress(b"[]", mtime=0)[:-4], gzip.compress(b"[]", mtime=0) + b"[]", b""],
    )
    def test_broken_gzip_is_400(self, deliveries, body):
        assert deliveries.post(body, **GZIP).status_code == 400

    def test_another_encoding_is_415(self, deliveries):
        assert deliveries.post(b"[]", HTTP_CONTENT_ENCODING="br").status_code == 415


class TestAccess:
    def test_only_the_service_token_is_accepted(self, project, client):
        _, key = issue_personal_api_key(project.organization, "all", READ_SCOPES)
        body = json.dumps([usage_event(project)])

        for headers in ({}, {"HTTP_AUTHORIZATION": f"Bearer {key}"}):
            response = client.post(
                "/api/usage_events/", body, content_type="application/json", **headers
            )
            assert response.status_code == 401
            assert response["WWW-Authenticate"].startswith("Bearer")
        assert not UsageEvent.objects.exists()

    @pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
    def test_other_methods_are_405(self, client, method):
        assert getattr(client, method)("/api/usage_events/", **SERVICE).status_code == 405


class TestBackpressure:
    """If a batch isn't booked, the answer says so, and it can be sent again."""

    @pytest.mark.parametrize(
        ("failure", "status"),
        [(DatabaseBusy(), 429), (OperationalError("the connection is gone"), 503)],
    )
    def test_a_slow_or_unavailable_database_asks_for_a_retry(
        self, project, deliveries, monkeypatch, failure, status
    ):
        event = usage_event(project)

        def fail(rows):
            raise failure

        with monkeypatch.context() as patched:
            patched.setattr(ledger, "insert", fail)
            response = deliveries.post([event])

        assert response.status_code == status
        assert int(response["Retry-After"]) >= 1
        assert used(project.organization) == 0
        assert deliveries.statuses(event) == ["accepted"]

    def test_an_item_nested_too_deeply_to_be_stored_is_400(self, project, deliveries, monkeypatch):
        def fail(items):
            raise NestedTooDeeply

        monkeypatch.setattr(ledger, "book", fail)
        assert deliveries.post([usage_event(project)]).status_code == 400

    @pytest.mark.parametrize("rule", ["check", "trigger"])
    def test_an_account_whose_rows_the_database_rejects_does_not_stop_others(
        self, project, stranger, deliveries, monkeypatch, rule
    ):
        deliveries.results(usage_event(project))
        account, insert = account_of(project.organization), ledger.insert

        def break_a_rule(rows):
            if account.pk not in {row.account_id for row in rows}:
                insert(rows)
            elif rule == "check":
                account.caps.create(scope="run", subject="one run", set_at=timezone.now())
            else:
                with connection.cursor() as cursor:
                    cursor.execute("UPDATE billing_usageevent SET kind = kind")

        monkeypatch.setattr(ledger, "insert", break_a_rule)
        results = deliveries.results(usage_event(stranger), usage_event(project))

        assert [(result["status"], result["reason"]) for result in results] == [
            ("accepted", None),
            ("quarantined", "account_undecidable"),
        ]

    def test_an_undecidable_account_does_not_stop_others(self, project, stranger, deliveries):
        deliveries.results(usage_event(project))
        full = UsageTotal.objects.filter(account__organization=project.organization)
        full.update(usage_micro=2**63 - 1)  # adding to it fails
        counted = metrics.UNDECIDABLE._value.get()

        results = deliveries.results(usage_event(stranger), usage_event(project), None)

        assert [(result["status"], result["reason"]) for result in results] == [
            ("accepted", None),
            ("quarantined", "account_undecidable"),
            ("quarantined", "not_an_event"),
        ]
        assert used(stranger.organization) == 12 * CREDIT
        assert metrics.UNDECIDABLE._value.get() == counted + 1
        full.update(usage_micro=12 * CREDIT)
        quarantine.book_now(QuarantinedEvent.objects.get(reason="account_undecidable"))
        assert used(project.organization) == 24 * CREDIT

    def test_batches_beyond_the_concurrency_limit_wait_their_turn(
        self, project, deliveries, monkeypatch
    ):
        monkeypatch.setattr(views, "_places", threading.BoundedSemaphore(1))
        monkeypatch.setattr(views, "PATIENCE_SECONDS", 0.01)

        with views._places:
            response = deliveries.post([usage_event(project)])

        assert response.status_code == 429
        assert int(response["Retry-After"]) >= 1
        assert deliveries.post([usage_event(project)]).status_code == 200

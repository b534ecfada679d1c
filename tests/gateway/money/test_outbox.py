"""Events wait until billing accepts them, and are delivered in batches of a limited size."""

import json
import uuid

from tests.conftest import wait_until
from tests.gateway.conftest import World
from tests.gateway.fake_tollgate import LARGEST_BATCH, FakeProject

SET_ASIDE = "tollgate:events:set-aside"


def written(world: World, project: FakeProject, size: int) -> str:
    """Append an event of this size to the stream of waiting events; return its id."""
    event = {
        "uuid": str(uuid.uuid4()),
        "account": f"{project.organization_id}:ai_credits",
        "debited_micro": 1,
        "properties": {"project_id": project.id, "$ai_billable": True, "text": "é" * (size // 2)},
    }
    fields = {"event": json.dumps(event, ensure_ascii=False), "account": event["account"]}
    world.redis.xadd("tollgate:events", {**fields, "debited": 1})
    return event["uuid"]


def test_waiting_events_are_delivered_in_batches_that_billing_accepts(fragile: World) -> None:
    project = fragile.tollgate.project(credits=100)
    fragile.tollgate.fail("events", 503)
    uuids = [written(fragile, project, size) for size in [900, 400_000] * 20 + [900] * 1_200]
    before = len(fragile.tollgate.batches)
    fragile.tollgate.mend()
    assert [event["uuid"] for event in fragile.booked(project, len(uuids))] == uuids
    batches = fragile.tollgate.batches[before:]
    assert all(events <= LARGEST_BATCH[0] for events, _ in batches), batches
    assert all(size <= LARGEST_BATCH[1] for _, size in batches), batches
    assert len(batches) < 12


def test_a_batch_that_a_proxy_refuses_is_halved(fragile: World) -> None:
    """A proxy in front of billing may accept less than billing itself."""
    project = fragile.tollgate.project(credits=100)
    fragile.tollgate.fail("events", 503)
    uuids = [written(fragile, project, 30_000) for _ in range(20)]
    poison = written(fragile, project, 130_000)
    fragile.tollgate.largest_batch = (1_000, 100_000)
    fragile.tollgate.mend()
    try:
        assert [event["uuid"] for event in fragile.booked(project, len(uuids))] == uuids
        wait_until(lambda: aside(fragile, poison), what="the one that is too large being set aside")
    finally:
        fragile.tollgate.largest_batch = LARGEST_BATCH


def test_an_event_larger_than_a_batch_is_set_aside_unsent(fragile: World) -> None:
    project = fragile.tollgate.project(credits=100)
    fragile.tollgate.fail("events", 503)
    poison = written(fragile, project, 6_000_000)
    last = written(fragile, project, 900)
    before = len(fragile.tollgate.batches)
    fragile.tollgate.mend()
    assert [event["uuid"] for event in fragile.booked(project)] == [last]
    assert aside(fragile, poison)
    assert all(size < 10_000 for _, size in fragile.tollgate.batches[before:])
    account = f"tollgate:account:{project.organization_id}:ai_credits"
    wait_until(lambda: fragile.redis.hget(account, "parked") == "1", what="it being accounted for")


def test_an_event_with_an_unknown_result_is_sent_again(fragile: World) -> None:
    project = fragile.tollgate.project(credits=100)
    fragile.tollgate.fail("events", 503)
    unclear, last = written(fragile, project, 900), written(fragile, project, 900)
    fragile.tollgate.event_status[unclear] = "perhaps"
    fragile.tollgate.mend()
    assert [event["uuid"] for event in fragile.booked(project)] == [last]
    assert not aside(fragile, unclear)
    del fragile.tollgate.event_status[unclear]
    assert {event["uuid"] for event in fragile.booked(project, 2)} == {last, unclear}


def aside(world: World, event_id: str) -> bool:
    """Return whether an event was set aside."""
    return any(event_id in fields["event"] for _, fields in world.redis.xrange(SET_ASIDE))

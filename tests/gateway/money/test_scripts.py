"""What each script in the gateway's Redis changes and returns, to the last member."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

import pytest
import redis

from gateway import keys
from gateway.network.redis_connection import Script

PROJECT, ACCOUNT = keys.project(7, "ai_credits"), "organization:ai_credits"
OF_PROJECT = keys.scope(ACCOUNT, "project:7")
OF_USER = keys.scope(ACCOUNT, "user:user")
RUN, HOLDS, BUCKET = keys.run("run"), keys.holds("owner"), keys.rate("digest")
SETTLED = keys.settled("owner")
MINUTE, DAY = 60_000, 86_400_000
SOON = 20_000
"""How much later than expected a time in Redis may be, in milliseconds."""


class Store:
    """The gateway's Redis, and its scripts with usual arguments."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis = client

    def run(self, name: str, keys: list[str], *arguments: Any) -> Any:
        return self.redis.eval(Script(name).source, len(keys), *keys, *arguments)

    @property
    def now(self) -> int:
        seconds, micros = self.redis.time()
        return seconds * 1000 + micros // 1000

    def admit(self, allotment: Any = 1000, **of_project: Any) -> None:
        """Store an answer of Django, as of now, that the project may call."""
        self.redis.hset(
            PROJECT,
            mapping={
                "account": ACCOUNT, "limited": "0", "limited_until": "", "asked_at": self.now,
                "answer": "its answer", "soft": "0", **of_project,
            },
        )  # fmt: skip
        self.set_account(allotment=allotment, valid_until="", epoch="ledger")

    def set_account(self, **fields: Any) -> None:
        self.redis.hset(keys.account(ACCOUNT), mapping=fields)

    def account(self, *names: str) -> list[str | None]:
        return self.redis.hmget(keys.account(ACCOUNT), *names)

    def hold(
        self, hold_id="hold", bound=100, *, run="", lease=MINUTE, window=MINUTE, sequence=0,
        run_cap="", per_minute=0, generation="", user="user", reserve=0, accepted="",
    ) -> list:  # fmt: skip
        return self.run(
            "hold",
            [PROJECT, keys.FEED, HOLDS, keys.OWNERS, BUCKET, keys.SEQUENCE, run, keys.GENERATION],
            hold_id, bound, "owner", lease, window, sequence, "record", run_cap, per_minute,
            generation, 7, user, reserve, accepted,
        )  # fmt: skip

    def settle(
        self, mode="hold", hold_id="hold", cost=60, account=ACCOUNT, copies=0, scopes=""
    ) -> list:
        names = [
            HOLDS, keys.EVENTS, keys.SEQUENCE, SETTLED, keys.REAPED, keys.POSTHOG_EVENTS,
            keys.POSTHOG_LEFT_OUT,
        ]  # fmt: skip
        return self.run(
            "settle", names, mode, hold_id, cost, "event", account, MINUTE, copies, scopes
        )

    def install(
        self, ticket=5, *, asked_at=1000, limited="0", until="", soft="0", epoch="ledger",
        version=5, allotment: Any = 1000, valid_until="later", booked=0, caps="", caps_version="",
        scopes=(),
    ) -> list:  # fmt: skip
        return self.run(
            "install",
            [PROJECT, keys.account(ACCOUNT), keys.PROJECTS, keys.RESYNC],
            ticket, asked_at, ACCOUNT, limited, until, "answer", soft, epoch, version, allotment,
            valid_until, booked, "7:ai_credits", caps, caps_version, *scopes,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Return everything that is stored."""
        return {key: self.redis.dump(key) for key in sorted(self.redis.scan_iter())}


@pytest.fixture
def store(own_redis: str) -> Iterator[Store]:
    with redis.Redis.from_url(own_redis, decode_responses=True) as client:
        client.flushall()
        client.dump = lambda key: redis.Redis.from_url(own_redis).dump(key)  # bytes, not text
        yield Store(client)


def about(value: Any, expected: int) -> bool:
    """Return whether a time or an age is as expected, on a busy machine."""
    return expected - 1 <= int(value) <= expected + SOON


# --- hold ----------------------------------------------------------------------------------------


def test_an_unknown_project_is_not_admitted(store: Store) -> None:
    assert store.hold() == ["unknown", 0, 0, 0, "", 0, 0, ""]


@pytest.mark.parametrize(
    ("stored", "known", "generations", "status"),
    [
        (4, 5, ("", ""), "rewound"),
        (5, 5, ("", ""), "held"),
        (6, 5, ("", ""), "held"),
        (None, 1, ("", ""), "rewound"),
        (5, 5, ("new", ""), "rewound"),
        (5, 5, ("new", "new"), "held"),
        (5, 5, ("", "old"), "rewound"),
    ],
)
def test_a_redis_that_lost_changes_admits_nothing(
    store: Store, stored, known, generations, status
) -> None:
    store.admit()
    if stored is not None:
        store.redis.set(keys.SEQUENCE, stored)
    if generations[0]:
        store.redis.set(keys.GENERATION, generations[0])
    answer = store.hold(sequence=known, generation=generations[1])
    assert answer[0] == status
    if status == "rewound":
        assert answer == ["rewound", 0, 0, 0, "", 0, 0, ""]


def test_a_hold_changes_exactly_what_it_reserves(store: Store) -> None:
    store.admit(caps="1  1 1")
    for scope in (OF_PROJECT, OF_USER):
        store.redis.hset(scope, mapping={"allotment": 500, "epoch": "ledger", "version": 1})
    store.set_account(spent=300, held=50)
    answer = store.hold(run=RUN)
    scopes = f"{OF_PROJECT} {OF_USER} {RUN}"
    assert answer[:3] == ["held", 1000 - 300 - 50 - 100, 150]
    assert about(answer[3], 0)
    assert about(answer[5], 0)
    assert (answer[4], answer[6:]) == ("", [1, scopes, -1])
    assert store.account("spent", "held") == ["300", "150"]
    assert store.redis.hgetall(HOLDS) == {"hold": f"{ACCOUNT}\n100\n{scopes}\nrecord"}
    for scope in (OF_PROJECT, OF_USER, RUN):
        assert store.redis.hmget(scope, "held", "spent") == ["100", None]
    assert about(store.redis.zscore(keys.OWNERS, "owner"), store.now + MINUTE - SOON)
    assert store.redis.get(keys.SEQUENCE) == "1"
    assert about(store.redis.hget(RUN, "begun"), store.now - SOON)
    assert about(store.redis.ttl(RUN) * 1000, 30 * DAY - SOON)
    assert not store.redis.exists(BUCKET), "nothing limits the requests"
    store.redis.persist(RUN)
    store.hold("another", run=RUN)
    assert store.redis.ttl(RUN) == -1, "a run's counters expire once, counted from its beginning"
    assert store.redis.get(keys.SEQUENCE) == "2"


def test_the_same_hold_again_reserves_nothing_more(store: Store) -> None:
    store.admit(allotment=150)
    store.hold(run=RUN, run_cap=150)
    before = store.state()
    for fits in ({"run_cap": 10_000}, {"run_cap": 150}):
        assert store.hold(run=RUN, **fits)[:3] == ["held", 50, 100]
    store.set_account(allotment=1000)
    answer = store.hold(run=RUN, run_cap=10_000)
    assert (answer[:3], answer[4], answer[6:]) == (["held", 900, 100], "", [0, "", -1])
    store.set_account(allotment=150)
    assert store.state() == before


@pytest.mark.parametrize(
    ("allotment", "soft", "remaining"), [("", "0", -1), (0, "1", -1), (100, "0", 0)]
)
def test_an_account_without_limit_or_with_a_soft_one_holds_any_bound(
    store: Store, allotment, soft, remaining
) -> None:
    store.admit(allotment, soft=soft)
    assert store.hold()[:3] == ["held", remaining, 100]


@pytest.mark.parametrize(
    ("until", "status"), [("", "limited"), (MINUTE, "limited"), (-MINUTE, "unknown")]
)
def test_a_limited_project_is_refused_until_its_limit_ends(store: Store, until, status) -> None:
    store.admit(limited="1", limited_until=until and store.now + until, asked_at=store.now - 5000)
    answer = store.hold(window=1)  # a refusal does not wait for news
    assert answer[:3] == [status, 0, 0]
    assert (answer[4], answer[6:]) == ("its answer", [0, ""])
    assert about(answer[3], 5000)
    assert about(answer[5], 5000)
    assert not store.redis.exists(HOLDS)


def test_the_end_of_a_limit_that_does_not_apply_refuses_nothing(store: Store) -> None:
    store.admit(limited="0", limited_until="1")
    assert store.hold()[0] == "held"


@pytest.mark.parametrize(
    ("asked", "confirmed", "stale", "age"),
    [
        (200, None, None, 200),
        (200, 30, None, 30),
        (30, 200, None, 30),
        (200, 10, 30, 30),
        (200, 30, 10, 30),
        (200, 100, 10, 100),
        (200, 10, 100, 100),
        (30, 10, 100, 30),
        (200, 10, 300, 200),
    ],
)
def test_an_old_answer_admits_nothing_unless_it_was_confirmed(
    store: Store, asked, confirmed, stale, age
) -> None:
    """All ages are in seconds. News that puts the answer in doubt ends its confirmation."""
    store.admit(asked_at=store.now - asked * 1000)
    if confirmed:
        store.redis.hset(keys.FEED, "confirmed_at", store.now - confirmed * 1000)
    if stale:
        store.redis.hset(PROJECT, "stale_since", store.now - stale * 1000)
    answer = store.hold(window=MINUTE)
    assert answer[0] == ("held" if age < 60 else "closed")
    assert about(answer[3], age * 1000)
    assert about(answer[5], asked * 1000)
    if age >= 60:
        assert (answer[1:3], answer[4]) == ([0, 0], "its answer")


def test_a_project_that_could_not_be_asked_about_is_closed(store: Store) -> None:
    store.admit(broken="1")
    assert store.hold()[:3] == ["closed", 0, 0]


@pytest.mark.parametrize(("until", "status"), [(MINUTE, "held"), (-MINUTE, "unknown")])
def test_a_snapshot_holds_until_it_ends(store: Store, until, status) -> None:
    store.admit()
    store.set_account(valid_until=store.now + until)
    answer = store.hold()
    assert answer[0] == status
    if status == "unknown":
        assert answer[1:3] == [0, 0]


def test_an_account_without_a_snapshot_is_unknown(store: Store) -> None:
    store.admit()
    store.redis.delete(keys.account(ACCOUNT))
    assert store.hold()[:3] == ["unknown", 0, 0]


def test_more_than_is_exact_is_not_held(store: Store) -> None:
    store.admit("")
    store.set_account(held=2**52 - 100)
    assert store.hold(bound=101)[:3] == ["excessive", 0, 2**52 - 100]
    assert store.hold(bound=100)[:3] == ["held", -1, 2**52]


@pytest.mark.parametrize(
    ("by_default", "of_run", "accepted", "cap"),
    [
        (100, "", "", 100), ("", "100", "", 100), (101, "100", "", 100), (100, "101", "", 100),
        ("", "", "", None), ("", "", 100, 100), (101, "102", 100, 100), (100, "", 101, 100),
        ("", "100", 101, 100),
    ],
)  # fmt: skip
def test_the_lowest_cap_of_a_run_applies(store: Store, by_default, of_run, accepted, cap) -> None:
    store.admit(caps=f"1 {of_run} 0 0")
    caps = {"run_cap": by_default, "accepted": accepted}
    answer = store.hold("much", bound=101, run=RUN, **caps)
    assert answer[:3] == (["held", 899, 101] if cap is None else ["run_cap", 100, 0])
    assert store.hold("fits", bound=100, run=RUN, **caps)[0] == "held"
    assert store.hold("without a run", bound=200, run_cap=by_default)[0] == "held"


def test_an_account_holds_its_last_micro_credit_and_not_one_more(store: Store) -> None:
    store.admit(allotment=100)
    assert store.hold("much", bound=101)[:3] == ["short", 100, 0]
    assert store.hold("fits", bound=100)[:3] == ["held", 0, 100]


def test_a_run_keeps_something_for_its_last_call(store: Store) -> None:
    store.admit()
    assert store.hold("much", bound=81, run=RUN, run_cap=100, reserve=20)[:3] == ["run_cap", 100, 0]
    assert store.hold("fits", bound=80, run=RUN, run_cap=100, reserve=20)[0] == "held"
    assert store.hold("last", bound=20, run=RUN, run_cap=100)[0] == "held"


def test_the_answer_says_how_much_of_its_cap_a_run_had_used_before(store: Store) -> None:
    store.admit()
    store.redis.hset(RUN, mapping={"spent": 100, "held": 99})
    assert store.hold("one", bound=1, run=RUN, run_cap=200)[8] == 99
    assert store.hold("without a cap", run=RUN)[8] == -1


def test_a_cap_without_counters_counts_as_unused(store: Store) -> None:
    store.admit(caps="1  1 0")
    store.redis.hset(OF_PROJECT, "allotment", 100)
    assert store.hold("much", bound=101)[:3] == ["project_cap", 100, 0]
    assert store.hold("fits", bound=100)[0] == "held"


def test_what_a_scope_spent_and_holds_is_not_left(store: Store) -> None:
    store.admit(caps="1 100 0 0")
    store.redis.hset(RUN, mapping={"spent": 30, "held": 20})
    assert store.hold("much", bound=51, run=RUN)[:3] == ["run_cap", 50, 20]
    store.admit(caps="1  1 0")
    store.redis.hset(OF_PROJECT, mapping={"allotment": 100, "spent": 30, "held": 20})
    assert store.hold("much", bound=51)[:3] == ["project_cap", 50, 20]
    assert store.hold("fits", bound=50, run=RUN)[0] == "held"


@pytest.mark.parametrize(
    ("epoch", "version", "status"),
    [
        ("ledger", 3, "held"),
        ("ledger", 4, "held"),
        ("ledger", 2, "unknown_user"),
        ("other", 3, "unknown_user"),
        (None, None, "unknown_user"),
    ],
)
def test_a_user_of_whom_too_little_is_known_is_asked_about(
    store: Store, epoch, version, status
) -> None:
    store.admit(caps="3  0 1")
    if epoch:
        known = {"epoch": epoch, "version": version, "allotment": 500}
        store.redis.hset(OF_USER, mapping=known)
    answer = store.hold()
    assert answer[:3] == ([status, 0, 0] if status != "held" else ["held", 900, 100])


def test_a_scope_without_a_cap_does_not_count_and_a_lost_one_is_unknown(store: Store) -> None:
    store.admit(caps="1  1 0")
    assert store.hold()[:3] == ["unknown", 0, 0]
    store.redis.hset(OF_PROJECT, "allotment", "")
    answer = store.hold()
    assert (answer[0], answer[7]) == ("held", "")
    assert store.redis.hget(OF_PROJECT, "held") is None


REQUESTS = {
    "hold": lambda store, number: store.hold(str(number), per_minute=2),
    "rate": lambda store, _: store.run("rate", [BUCKET], 2),
    "precheck": lambda store, _: store.run("precheck", [PROJECT, BUCKET], 2),
}
ADMITTED = {"hold": "held", "rate": 0, "precheck": ""}


@pytest.mark.parametrize("script", REQUESTS)
@pytest.mark.parametrize(
    ("left", "seconds_ago", "passed", "wait"),
    [
        (None, 0, 2, 30),
        (0, 0, 0, 30),
        (0, 15, 0, 15),
        (0, 31, 1, 29),
        (0, 600, 2, 30),
        (1.5, 0, 1, 15),
        (1.5, 18, 2, 30),
        (1, 0, 1, 30),
    ],
)
def test_a_bucket_of_requests_refills_evenly_up_to_a_minutes_worth(
    store: Store, script: str, left: float | None, seconds_ago: int, passed: int, wait: int
) -> None:
    store.admit()
    if left is not None:
        store.redis.set(BUCKET, f"{left} {store.now - seconds_ago * 1000}")

    def ask(number: int) -> Any:
        answer = REQUESTS[script](store, number)
        return answer if script == "rate" else answer[0]

    before = store.redis.get(BUCKET)
    for number in range(passed):
        assert ask(number) == ADMITTED[script]
        if script == "precheck":  # it takes nothing
            assert store.redis.get(BUCKET) == before
            return
        assert about(store.redis.pttl(BUCKET), MINUTE - SOON)
    refused = REQUESTS[script](store, passed)
    if script == "hold":
        assert (refused[0], refused[2]) == ("rate", 0)
    if script == "precheck":
        assert refused[:2] == ["rate", ""]
    waits = refused if script == "rate" else refused[{"hold": 1, "precheck": 2}[script]]
    # On a busy machine some time passed. The wait is rounded up, after what floats lose.
    assert wait * 1000 - 8000 < waits <= wait * 1000 + 1


@pytest.mark.parametrize("script", REQUESTS)
def test_one_request_a_minute_is_one_request(store: Store, script: str) -> None:
    store.admit()
    ask = {
        "hold": lambda name: store.hold(name, per_minute=1)[0],
        "rate": lambda _: store.run("rate", [BUCKET], 1) and "rate",
        "precheck": lambda _: store.run("precheck", [PROJECT, BUCKET], 1)[0],
    }[script]
    assert ask("first") == ADMITTED[script]
    if script == "precheck":
        store.run("rate", [BUCKET], 1)
    assert ask("second") == "rate"


# --- precheck ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limited", "until", "expected"),
    [
        ("1", "", ["limited", "its answer", 0]),
        ("1", MINUTE, ["limited", "its answer", 0]),
        ("1", -MINUTE, ["", "", 0]),
        ("0", "", ["", "", 0]),
        ("0", MINUTE, ["", "", 0]),
    ],
)
def test_a_precheck_refuses_only_what_any_call_would_be(store, limited, until, expected) -> None:
    store.admit(limited=limited, limited_until=until and store.now + until)
    before = store.state()
    assert store.run("precheck", [PROJECT, BUCKET], 0) == expected
    assert store.state() == before
    store.redis.hdel(PROJECT, "answer")
    assert store.run("precheck", [PROJECT, BUCKET], 5) == [expected[0], "", 0]


# --- settle and restore --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hold", "reap", "release", "force"])
def test_only_a_forced_settlement_needs_no_hold(store: Store, mode: str) -> None:
    store.redis.set(keys.SEQUENCE, 8)
    before = store.state()
    assert store.settle(mode, scopes=RUN) == (["gone", 8] if mode != "force" else ["settled", 9])
    if mode != "force":
        assert store.state() == before
        return
    assert store.account("spent", "pending", "held") == ["60", "60", None]
    assert store.redis.hmget(RUN, "spent", "held") == ["60", None]
    [(_, entry)] = store.redis.xrange(keys.EVENTS)
    assert entry == {"event": "event", "account": ACCOUNT, "debited": "60"}


def test_a_settlement_in_an_empty_redis_has_the_sequence_zero(store: Store) -> None:
    assert store.settle() == ["gone", 0]


@pytest.mark.parametrize("mode", ["hold", "reap", "force"])
def test_a_settlement_books_the_cost_and_releases_the_rest(store: Store, mode: str) -> None:
    store.admit(caps="1  1 0")
    store.redis.hset(OF_PROJECT, "allotment", 500)
    store.hold(run=RUN)
    store.hold("another", bound=30, run=RUN)
    assert store.settle(mode, scopes="not these") == ["settled", 3]
    assert store.account("spent", "pending", "held") == ["60", "60", "30"]
    for scope in (OF_PROJECT, RUN):
        assert store.redis.hmget(scope, "spent", "held") == ["60", "30"]
    assert store.redis.hkeys(HOLDS) == ["another"]
    assert about(store.redis.zscore(SETTLED, "hold"), store.now + MINUTE - SOON)
    reaped = store.redis.zscore(keys.REAPED, "hold")
    if mode == "reap":
        assert about(reaped, store.now + DAY - SOON)
    else:
        assert reaped is None
    before = store.state()
    for again in ("hold", "reap", "force", "release"):
        assert store.settle(again) == ["reaped" if mode == "reap" else "done", 3]
    assert store.state() == before, "booked once"
    assert not store.redis.exists(keys.POSTHOG_EVENTS, keys.POSTHOG_LEFT_OUT)


def test_a_release_books_nothing(store: Store) -> None:
    store.admit()
    store.hold(run=RUN)
    assert store.settle("release") == ["settled", 2]
    assert store.account("spent", "pending", "held") == [None, None, "0"]
    assert store.redis.hmget(RUN, "spent", "held") == [None, "0"]
    assert not store.redis.exists(keys.EVENTS, SETTLED, HOLDS)


def test_nothing_is_debited_from_no_account(store: Store) -> None:
    store.settle("force", account="", scopes=RUN)
    [(_, entry)] = store.redis.xrange(keys.EVENTS)
    assert entry["account"] == ""
    assert not store.redis.exists(RUN, keys.account(""))


@pytest.mark.parametrize("held", [99, 50])
def test_held_never_becomes_negative(store: Store, held: int) -> None:
    store.admit()
    store.hold(run=RUN)
    store.set_account(held=held)
    store.redis.hset(RUN, "held", held)
    store.settle()
    assert store.account("held") == ["0"]
    assert store.redis.hget(RUN, "held") == "0"


def test_what_a_scope_spent_may_be_corrected_below_zero(store: Store) -> None:
    store.settle("force", cost=-60, scopes=RUN)
    assert store.redis.hget(RUN, "spent") == "-60"


def test_as_many_events_wait_for_posthog_as_may(store: Store) -> None:
    for number in range(4):
        store.settle("force", str(number), copies=2)
    assert [entry for _, entry in store.redis.xrange(keys.POSTHOG_EVENTS)] == 2 * [
        {"event": "event"}
    ]
    assert store.redis.get(keys.POSTHOG_LEFT_OUT) == "2"
    assert store.redis.xlen(keys.EVENTS) == 4


def test_a_hold_is_restored_once_and_never_after_it_was_settled(store: Store) -> None:
    def restore(hold_id: str) -> int:
        names = [HOLDS, SETTLED, keys.SEQUENCE]
        return store.run("restore", names, hold_id, ACCOUNT, 100, f"{OF_USER} {RUN}", "record")

    store.settle("force", "settled", cost=0)
    before = store.state()
    assert restore("settled") == 0
    assert store.state() == before
    assert restore("hold") == 1
    assert store.redis.hgetall(HOLDS) == {"hold": f"{ACCOUNT}\n100\n{OF_USER} {RUN}\nrecord"}
    assert store.account("held") == ["100"]
    assert [store.redis.hget(scope, "held") for scope in (OF_USER, RUN)] == ["100", "100"]
    assert store.redis.get(keys.SEQUENCE) == "2"
    before = store.state()
    assert restore("hold") == 0
    assert store.state() == before
    assert store.settle() == ["settled", 3]
    assert store.account("held") == ["0"]


# --- install, mark, resync -----------------------------------------------------------------------


def test_an_answer_is_installed_whole(store: Store) -> None:
    assert store.install(limited="1", until="2", soft="1", caps="1  1 0") == [1, 1, "", 0]
    assert store.redis.hgetall(PROJECT) == {
        "ticket": "5", "asked_at": "1000", "account": ACCOUNT, "limited": "1",
        "limited_until": "2", "answer": "answer", "soft": "1", "caps": "1  1 0",
    }  # fmt: skip
    assert store.redis.hgetall(keys.account(ACCOUNT)) == {
        "epoch": "ledger", "version": "5", "allotment": "1000", "valid_until": "later",
        "ticket": "5", "spent": "0", "installed_at": ANY,
    }  # fmt: skip
    assert store.redis.zrange(keys.PROJECTS, 0, -1, withscores=True) == [("7:ai_credits", 1000)]
    assert not store.redis.exists(keys.RESYNC)


@pytest.mark.parametrize(("ticket", "installed"), [(4, 0), (5, 0), (6, 1)])
def test_the_answer_to_the_latest_question_wins(store: Store, ticket, installed) -> None:
    store.install(5, caps="1  1 0")
    store.redis.hset(PROJECT, mapping={"broken": "1"})
    answer = store.install(ticket, limited="1", asked_at=2000, allotment="unknown")
    assert answer == [installed, 0, "", 0]
    found = store.redis.hmget(PROJECT, "limited", "asked_at", "caps", "broken", "ticket")
    kept, new = ["0", "1000", "1  1 0", "1", "5"], ["1", "2000", None, None, "6"]
    assert found == (new if installed else kept)
    assert store.redis.zscore(keys.PROJECTS, "7:ai_credits") == (2000 if installed else 1000)
    assert store.account("ticket", "allotment") == ["5", "1000"]


@pytest.mark.parametrize(("doubtful_at", "doubtful"), [(5, False), (6, True), (7, True)])
def test_only_a_later_answer_removes_doubt(store: Store, doubtful_at, doubtful) -> None:
    store.install(4)
    store.redis.hset(PROJECT, mapping={"stale_since": 9, "stale_ticket": doubtful_at})
    store.install(6)
    found = store.redis.hmget(PROJECT, "stale_since", "stale_ticket")
    assert found == (["9", str(doubtful_at)] if doubtful else [None, None])


@pytest.mark.parametrize(("version", "installed"), [(4, 0), (5, 0), (6, 1)])
def test_an_older_snapshot_of_the_same_ledger_is_ignored(store, version, installed) -> None:
    store.install(9)
    store.set_account(spent=40, pending=10)
    assert store.install(10, version=version, allotment=7, booked=30) == [1, installed, "", 0]
    assert store.account("allotment", "spent") == ["7" if installed else "1000", "40"]


@pytest.mark.parametrize(("ticket", "installed"), [(4, 0), (5, 0), (6, 1)])
def test_a_restored_ledger_counts_what_it_booked_and_what_is_on_its_way(
    store: Store, ticket, installed
) -> None:
    store.install(5, version=9)
    store.set_account(spent=90, pending=10)
    scopes = [OF_PROJECT, 50, 20, 50]
    answer = store.install(
        ticket, epoch="restored", version=3, booked=30, caps_version=1, scopes=scopes
    )
    assert answer == ([1, 1, "restored", 50] if installed else [0, 0, "", 0])
    if installed:
        assert store.account("spent", "epoch", "version") == ["40", "restored", "3"]
    else:
        assert store.account("spent", "epoch", "version") == ["90", "ledger", "9"]
    assert store.redis.exists(OF_PROJECT) == installed
    assert not store.redis.exists(keys.RESYNC)


@pytest.mark.parametrize("parked", [49, 50])
def test_only_spending_that_nobody_keeps_is_missing_from_a_restored_ledger(store, parked) -> None:
    store.install(5, version=9)
    store.set_account(spent=90, pending=10, parked=parked)
    answer = store.install(6, epoch="restored", version=3, booked=30)
    assert answer == ([1, 1, "restored", 1] if parked == 49 else [1, 1, "", 0])


def test_an_older_or_another_version_than_was_known_before_the_question_is_refused(
    store: Store,
) -> None:
    store.install(5, version=9)
    before = store.state()
    known_at = int(store.account("installed_at")[0])
    assert store.install(6, version=8, asked_at=known_at + 1, limited="1") == [0, 0, "outdated", 0]
    another = store.install(6, version=9, allotment=999, asked_at=known_at + 1)
    assert another == [0, 0, "outdated", 0]
    assert store.state() == before
    assert store.install(6, version=8, asked_at=known_at) == [1, 0, "", 0]  # it was overtaken
    assert store.install(7, version=9, asked_at=known_at + 1) == [1, 0, "", 0]
    assert store.install(8, version=1, asked_at=known_at + 1, epoch="new") == [1, 1, "", 0]


@pytest.mark.parametrize(("spent", "lost"), [(100, 0), (99, 1), (None, 1)])
def test_a_ledger_that_booked_more_than_was_spent_shows_a_loss(store, spent, lost) -> None:
    store.install(5)
    store.redis.hdel(keys.account(ACCOUNT), "spent")
    if spent is not None:
        store.set_account(spent=spent)
    store.set_account(pending=10)
    assert store.install(6, version=6, booked=100) == [1, 1, "booked_more" if lost else "", 0]
    assert store.account("spent", "resync") == (["110", "1"] if lost else ["100", None])
    score = store.redis.zscore(keys.RESYNC, "7:ai_credits")
    assert about(score, store.now - SOON) if lost else score is None


def test_an_account_that_lost_its_snapshot_gets_the_next_one(store: Store) -> None:
    store.settle("force", cost=60)
    assert store.install(booked=100) == [1, 1, "", 0]
    assert store.account("spent", "allotment") == ["160", "1000"]


def test_nothing_booked_by_an_unused_account_is_no_loss(store: Store) -> None:
    store.install(5)
    store.redis.hdel(keys.account(ACCOUNT), "spent")
    assert store.install(6, version=6, booked=0) == [1, 1, "", 0]
    store.redis.hdel(keys.account(ACCOUNT), "spent")
    assert store.install(7, version=7, booked=1) == [1, 1, "booked_more", 0]
    assert store.account("spent") == ["1"], "nothing is on its way"


@pytest.mark.parametrize(
    ("version", "booked", "before", "after"),
    [
        (None, 0, None, None),
        (None, 1, None, "1"),
        (None, 20, None, "20"),
        (2, 20, "30", "30"),
        (2, 20, "20", "20"),
        (2, 31, "30", "31"),
        (3, 31, "30", "31"),
        (4, 31, "30", "30"),
    ],
)
def test_a_scope_follows_the_newest_answer_and_never_forgets_spending(
    store: Store, version, booked, before, after
) -> None:
    store.install(5)
    if version:
        known = {"epoch": "ledger", "version": version, "spent": before, "allotment": 1}
        store.redis.hset(OF_PROJECT, mapping=known)
    store.install(6, caps_version=3, scopes=[OF_PROJECT, 50, booked, 40, OF_USER, "", 5, ""])
    found = store.redis.hmget(OF_PROJECT, "spent", "allotment", "cap", "version", "epoch")
    new = [after, "50", "40", "3", "ledger"]
    assert found == ([before, "1", None, "4", "ledger"] if version == 4 else new)
    assert store.redis.hmget(OF_USER, "spent", "allotment", "cap") == ["5", "", ""]


def test_a_scope_of_a_restored_ledger_counts_what_that_booked(store: Store) -> None:
    known = {"epoch": "ledger", "version": 9, "spent": 30, "allotment": 1}
    store.redis.hset(OF_PROJECT, mapping=known)
    store.install(6, epoch="restored", caps_version=3, scopes=[OF_PROJECT, 50, 20, 40])
    assert store.redis.hmget(OF_PROJECT, "spent", "epoch", "version") == ["20", "restored", "3"]


def test_marks_touch_only_known_projects(store: Store) -> None:
    store.redis.set(keys.TICKETS, 6)
    assert store.run("mark", [keys.TICKETS, PROJECT], "broken") == 1
    assert not store.redis.exists(PROJECT)
    store.admit()
    other = keys.project(8, "ai_credits")
    store.run("mark", [keys.TICKETS, other, PROJECT], "broken")
    assert store.redis.hmget(PROJECT, "broken", "stale_since") == ["1", None]
    assert store.redis.get(keys.TICKETS) == "6"
    assert store.run("mark", [keys.TICKETS, other, PROJECT], "stale") == 1
    since, ticket = store.redis.hmget(PROJECT, "stale_since", "stale_ticket")
    assert about(since, store.now - SOON)
    assert ticket == "7"
    store.redis.hset(PROJECT, "stale_since", 5)
    store.run("mark", [keys.TICKETS, PROJECT], "stale")
    assert store.redis.hmget(PROJECT, "stale_since", "stale_ticket") == ["5", "8"]
    assert not store.redis.exists(other)


@pytest.mark.parametrize(
    ("epoch", "resync", "done"), [("ledger", "1", 1), ("other", "1", 0), ("ledger", None, 0)]
)
def test_a_resynchronisation_counts_everything_once(store, epoch, resync, done) -> None:
    store.set_account(epoch=epoch, spent=1)
    if resync:
        store.set_account(resync=resync)
    assert store.run("resync", [keys.account(ACCOUNT)], "ledger", 100) == done
    assert store.account("spent", "resync") == (["100", None] if done else ["1", resync])
    store.set_account(epoch="ledger", pending=20, parked=3, resync="1")
    assert store.run("resync", [keys.account(ACCOUNT)], "ledger", 100) == 1
    assert store.account("spent") == ["123"]


def test_a_ticket_numbers_a_question_and_tells_the_time(store: Store) -> None:
    for number in (1, 2):
        ticket, now = store.run("ticket", [keys.TICKETS])
        assert ticket == number
        assert about(now, store.now - SOON)


# --- events --------------------------------------------------------------------------------------


def test_delivered_events_leave_the_stream_and_what_was_not_booked_is_kept(store: Store) -> None:
    for number in range(4):
        store.settle("force", str(number), cost=10 + number, account=ACCOUNT if number else "")
    store.set_account(parked=5)
    ids = [entry for entry, _ in store.redis.xrange(keys.EVENTS)]
    deliver = [ids[0], "", 10, "quarantined", ids[1], ACCOUNT, 11, "booked"]
    deliver += [ids[2], ACCOUNT, 12, "quarantined", "1-1", ACCOUNT, 99, "quarantined"]
    assert store.run("acknowledge", [keys.EVENTS, keys.SET_ASIDE], *deliver) == 3
    assert [entry for entry, _ in store.redis.xrange(keys.EVENTS)] == ids[3:]
    assert store.account("pending", "parked", "spent") == ["13", "17", "36"]
    assert [entry for _, entry in store.redis.xrange(keys.SET_ASIDE)] == [
        {"status": "quarantined", "event": "event", "account": "", "debited": "10"},
        {"status": "quarantined", "event": "event", "account": ACCOUNT, "debited": "12"},
    ]
    assert not store.redis.exists(keys.account(""))
    assert store.run("acknowledge", [keys.EVENTS, keys.SET_ASIDE], *deliver) == 0


@pytest.mark.parametrize(
    ("sizes", "most", "most_bytes", "expected"),
    [
        ([], 100, 100, 0),
        ([10, 10, 10], 100, 30, 3),
        ([10, 10, 10], 100, 29, 2),
        ([10, 10, 10], 2, 100, 2),
        ([50, 10], 100, 30, 1),
        ([10, 50, 10], 100, 30, 1),
        ([10] * 20, 100, 10_000, 20),
        ([10] * 45, 100, 10_000, 45),
        ([10] * 45, 43, 10_000, 43),
        ([10] * 45, 40, 10_000, 40),
        ([10] * 45, 41, 10_000, 41),
        ([10] * 45, 100, 300, 30),
        ([10] * 21 + [1000], 100, 300, 21),
    ],
)
def test_a_batch_is_the_oldest_events_up_to_a_size(
    store: Store, sizes, most, most_bytes, expected
) -> None:
    ids = [store.redis.xadd(keys.EVENTS, {"e": "x" * (size - 1)}) for size in sizes]
    found = store.run("oldest", [keys.EVENTS], most, most_bytes)
    assert [entry[0] for entry in found] == ids[:expected]


# --- idempotency keys and the leader -------------------------------------------------------------

KEY = keys.kept_answer("digest")


def claim(store: Store, call: str = "call", fingerprint: str = "request") -> list:
    """Claim a key. A call has ten seconds to get its hold; one if its process is unknown."""
    names = [KEY, keys.OWNERS, keys.disclaimed(call)]
    return store.run("claim", names, call, "owner", fingerprint, 10_000 * 60, 1000 * 60, DAY)


def disclaim(store: Store, call: str, generated: str, late_ms: int = 0) -> int:
    return store.run("disclaim", [KEY, keys.disclaimed(call)], call, generated, late_ms)


def test_a_key_is_claimed_once(store: Store) -> None:
    assert claim(store) == ["first", ""]
    found = store.redis.hgetall(KEY)
    assert about(found.pop("at"), store.now - SOON)
    assert found == {"fingerprint": "request", "owner": "owner", "call": "call"}
    assert about(store.redis.pttl(KEY), DAY - SOON)
    before = store.state()
    assert claim(store, "second") == ["under_way", ""]
    assert claim(store, "second", "another request") == ["other", ""]
    store.redis.hset(KEY, "answer", "kept")
    assert claim(store, "second") == ["kept", "kept"]
    assert claim(store, "second", "another request") == ["other", ""]
    store.redis.hdel(KEY, "answer")
    assert store.state() == before


@pytest.mark.parametrize(
    ("minutes_ago", "lease", "held", "status"),
    [
        (0.5, None, False, "under_way"),
        (2, None, False, "again"),
        (2, -1, False, "again"),
        (2, 1, False, "under_way"),
        (11, 1, False, "again"),
        (11, None, True, "under_way"),
        (11, -1, True, "under_way"),
    ],
)
def test_a_call_is_under_way_while_it_may_get_a_hold_or_has_one(
    store: Store, minutes_ago, lease, held, status
) -> None:
    claim(store)
    store.redis.hset(KEY, "at", store.now - int(minutes_ago * MINUTE))
    if lease:
        store.redis.zadd(keys.OWNERS, {"owner": store.now + lease * MINUTE})
    if held:
        store.redis.hset(HOLDS, "call", "hold")
    assert claim(store, "second") == [status, ""]
    assert store.redis.hget(KEY, "call") == ("second" if status == "again" else "call")


@pytest.mark.parametrize(("generated", "left"), [("0", {}), ("1", {"at": "0"})])
def test_only_its_own_call_gives_up_a_key(store: Store, generated, left) -> None:
    claim(store)
    before = store.state()
    disclaim(store, "another call", generated)
    assert store.state() == before
    assert disclaim(store, "call", generated) == 0
    assert {name: store.redis.hget(KEY, name) for name in left} == left
    assert store.redis.exists(KEY) == len(left)
    assert claim(store, "second")[0] == ("again" if left else "first")


def test_a_claim_that_is_made_after_it_was_given_back_is_void(store: Store) -> None:
    disclaim(store, "late", "0", MINUTE)
    assert about(store.redis.pttl(keys.disclaimed("late")), MINUTE - SOON)
    before = store.state()
    assert claim(store, "late") == ["under_way", ""]
    assert store.state() == before
    assert claim(store) == ["first", ""]


def test_one_process_leads_until_its_lease_ends(store: Store) -> None:
    def lead(owner: str) -> int:
        return store.run("lead", [keys.LEADER], owner, MINUTE)

    assert lead("one") == 1
    assert about(store.redis.pttl(keys.LEADER), MINUTE - SOON)
    store.redis.pexpire(keys.LEADER, 1000 * 60 * 60)
    assert lead("other") == 0
    assert store.redis.get(keys.LEADER) == "one"
    assert lead("one") == 1
    assert store.redis.pttl(keys.LEADER) <= MINUTE, "renewed"
    store.redis.delete(keys.LEADER)
    assert lead("other") == 1

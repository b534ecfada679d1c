"""Late, repeated and lost publications, manual edits of the sorted set, and a Redis that is wiped.

A Hypothesis state machine with the real scripts, the real server and the real rows.
"""

from collections.abc import Callable
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from projects.models import Organization, Project
from projects.tokens import generate_project_api_token
from quota.gate import check
from quota.models import QuotaState, SetMember
from quota.published import limited_set
from quota.published import redis_client as quota_redis
from quota.published.limited_set import Entry, published_key
from quota.published.publication import publish, republish_project
from quota.published.reconciler import Reconciler
from quota.resources import AI_CREDITS
from tests.examples import examples
from tests.quota.world import LIMITS, Accounts

pytestmark = pytest.mark.django_db

NOW = int(timezone.now().timestamp())
PUBLISHED_UNTIL = st.integers(1, 3).map(lambda days: NOW // 2 * 2 + 86_400 * days)
BY_HAND_UNTIL = st.integers(1, 3).map(lambda days: NOW // 2 * 2 + 86_400 * days + 1)
"""Odd, so that the test can see who wrote a score. In reality a score set by hand may be equal."""

WHICH = st.integers(0, 10)


class Publications(RuleBasedStateMachine):
    """One organization with two projects, and everything that can happen to its block."""

    def __init__(self) -> None:
        super().__init__()
        self.redis = quota_redis.client()
        self.redis.flushall()
        quota_redis.health.__init__()
        organization = Organization.objects.create(name=str(uuid4()))
        self.projects = [
            Project.objects.create(organization=organization, name=name) for name in "ab"
        ]
        self.accounts = Accounts(organization)
        self.by_hand: dict[str, int] = {}
        self.under_way: list[tuple[int, Callable[[], None]]] = []
        self.unheard: set[int] = set()
        self.complete: set[int] = set()
        self.begun = 0
        self.snapshots: list[tuple[dict, dict]] = []
        self.removed_since_tick = False
        self.reconciler = Reconciler()
        self._publish(self.accounts.state())
        self.deliver(-1)
        self.tick()

    def teardown(self) -> None:
        QuotaState.objects.all().delete()
        SetMember.objects.all().delete()

    def _publish(self, *states) -> None:
        self._begin(lambda: publish(states))
        self.complete.add(self.begun)

    def _begin(self, change) -> None:
        """Make the change, and hold back its on-commit hooks until `deliver`."""
        start = len(connection.run_on_commit)
        change()
        self.begun += 1
        self.unheard.add(self.begun)
        for _, callback, _ in connection.run_on_commit[start:]:
            self.under_way.append((self.begun, callback))
        del connection.run_on_commit[start:]

    def _scores(self) -> dict[str, float]:
        return dict(self.redis.zrange(LIMITS, 0, -1, withscores=True))

    def _entries(self) -> dict[str, Entry | None]:
        texts = self.redis.hgetall(published_key(AI_CREDITS))
        return {token: Entry.parse(text) for token, text in texts.items()}

    def _published(self) -> dict[str, int]:
        rows = SetMember.objects.filter(
            origin=SetMember.Origin.PUBLISHED, resource=AI_CREDITS, limited_until__isnull=False
        )
        return dict(rows.values_list("token", "limited_until"))

    # --- publishers ------------------------------------------------------------------------------
    @rule(until=PUBLISHED_UNTIL, arrives=st.booleans())
    def limit(self, until: int, arrives: bool) -> None:
        self._publish(self.accounts.limited_state(limited_until=until))
        if arrives:
            self.deliver(-1)

    @rule(arrives=st.booleans())
    def lift(self, arrives: bool) -> None:
        self._publish(self.accounts.state())
        if arrives:
            self.deliver(-1)

    @rule(which=WHICH, arrives=st.booleans())
    def rotate_a_token(self, which: int, arrives: bool) -> None:
        project = self.projects[which % 2]
        project.api_token = generate_project_api_token()
        project.save()
        self._begin(lambda: republish_project(project))
        if arrives:
            self.deliver(-1)

    @precondition(lambda self: self.under_way)
    @rule(which=WHICH)
    def deliver(self, which: int) -> None:
        """A publisher pushes, perhaps repeatedly; an older one changes nothing.

        But a score that somebody removed comes back, until the newest publication arrives.
        """
        number, callback = self.under_way[which % len(self.under_way)]
        scores, entries = self._scores(), self._entries()
        callback()
        for token, entry in self._entries().items():
            before = entries.get(token)
            assert before is None or before.version <= entry.version
            if before is not None and before.version == entry.version:
                score = self._scores().get(token)
                restored = token not in scores and score == entry.limited_until
                assert self.removed_since_tick or restored or score == scores.get(token)
        self.unheard.discard(number)
        if number == max(number for number, _ in self.under_way) and number in self.complete:
            self.unheard.clear()

    @precondition(lambda self: self.under_way)
    @rule(which=WHICH)
    def die(self, which: int) -> None:
        """A publisher dies between its commit and its push."""
        del self.under_way[which % len(self.under_way)]

    # --- people ----------------------------------------------------------------------------------
    @rule(which=WHICH, until=BY_HAND_UNTIL)
    def set_by_hand(self, which: int, until: int) -> None:
        token = self.projects[which % 2].api_token
        self.redis.zadd(LIMITS, {token: until})
        self.by_hand[token] = until

    @rule(which=WHICH)
    def remove_by_hand(self, which: int) -> None:
        token = self.projects[which % 2].api_token
        self.redis.zrem(LIMITS, token)
        self.by_hand.pop(token, None)
        self.removed_since_tick = True

    # --- the server ------------------------------------------------------------------------------
    @rule()
    def wipe(self) -> None:
        self.redis.flushall()
        self.by_hand.clear()

    @rule()
    def take_a_snapshot(self) -> None:
        dumped = {
            name: self.redis.dump(name)
            for name in self.redis.keys("*quota*")
            if name != limited_set.MARKER
        }
        self.snapshots.append((dumped, dict(self.by_hand)))

    @precondition(lambda self: self.snapshots)
    @rule(which=WHICH)
    def restore_an_old_snapshot(self, which: int) -> None:
        """The snapshot is so old that its marker has expired."""
        dumped, by_hand = self.snapshots[which % len(self.snapshots)]
        self.redis.flushall()
        for name, value in dumped.items():
            self.redis.restore(name, 0, value)
        self.by_hand = dict(by_hand)

    # --- the reconciler --------------------------------------------------------------------------
    @rule()
    def tick(self) -> None:
        """Afterwards the set holds exactly what was published and what was set by hand."""
        self.reconciler.tick()
        self.removed_since_tick = False
        self.unheard.clear()
        assert self._scores() == self._published() | self.by_hand
        noticed = SetMember.objects.filter(origin=SetMember.Origin.BY_HAND)
        assert dict(noticed.values_list("token", "limited_until")) == self.by_hand

    @invariant()
    def nobody_is_admitted_over_quota(self) -> None:
        """Exception until the next tick: a block that was removed by hand or not pushed yet."""
        excused = self.removed_since_tick or self.unheard
        published = self._published()
        for project in self.projects:
            limited = project.api_token in published or project.api_token in self.by_hand
            verdict = check(project)
            assert verdict.limited or not limited or excused
            if verdict.source == "database" or not excused:
                assert verdict.limited == limited


def test_the_set_converges_and_stale_publishers_change_nothing(redis_client):
    run_state_machine_as_test(
        Publications,
        settings=settings(
            max_examples=examples(15),
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

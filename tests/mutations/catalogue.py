"""Mistakes that others made, as small changes of our code, each with a test that must notice it."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutation:
    """Replaces `ours` by `mistake` in a file. Then `test`, which passes otherwise, must fail."""

    number: int
    says: str
    file: str
    ours: str
    mistake: str
    test: str

    def apply(self, root: Path) -> None:
        """Make the mistake in a copy of the project. Raises `ValueError` if it is not there."""
        path = root / self.file
        text = path.read_text()
        if text.count(self.ours) != 1:
            raise ValueError(f"{self.file} contains {self.ours!r} {text.count(self.ours)} times")
        path.write_text(text.replace(self.ours, self.mistake))


MUTATIONS = [
    Mutation(
        1,
        "the quota endpoint refuses the scope that the gateway's callers have",
        "quota/views.py",
        "[has_any_scope(PROJECT_READ, LLM_GATEWAY_READ)]",
        "[has_any_scope(PROJECT_READ)]",
        "tests/quota/quota_limits/test_access.py::test_one_of_two_scopes_is_enough",
    ),
    Mutation(
        3,
        "the refusal of one caller is remembered for the whole team",
        "quota/views.py",
        "    def _identify(\n        self, request: Request, project_id: int\n    )",
        "    def initial(self, request, *args, **kwargs):\n"
        "        try:\n"
        "            if getattr(type(self), 'refused', None):\n"
        "                raise type(self).refused\n"
        "            super().initial(request, *args, **kwargs)\n"
        "        except Exception as error:\n"
        "            type(self).refused = error\n"
        "            raise\n\n"
        "    def _identify(\n        self, request: Request, project_id: int\n    )",
        "tests/quota/quota_limits/test_access.py::test_one_callers_refusal_does_not_affect_another_caller",
    ),
    Mutation(
        4,
        "an account whose state is unknown counts as not limited",
        "quota/state.py",
        '            raise QuotaUnknown("a state is no longer valid and there is no newer one")',
        "            pass",
        "tests/quota/test_gate.py::test_a_decision_that_publishes_no_newer_state_is_unknown",
    ),
    Mutation(
        6,
        "one decision looks at the clock twice",
        "billing/decisions/decision.py",
        "        return snapshot.now\n    return since",
        "        return datetime.now(UTC)\n    return since",
        "tests/billing/decisions/test_decision.py::test_a_decision_uses_one_now",
    ),
    Mutation(
        7,
        "publishing replaces the whole set",
        "quota/published/delta.py",
        '    script = redis_client.script("push")\n',
        '    script = redis_client.script("push")\n'
        "    for resource in {delta.resource for delta in (deltas := list(deltas))}:\n"
        "        redis_client.client().delete(limits_key(resource))\n",
        "tests/quota/published/test_publication.py"
        "::test_a_block_reaches_every_project_of_the_organization_and_nobody_else",
    ),
    Mutation(
        7,
        "one account that cannot be decided ends the sweep of all",
        "billing/sweep.py",
        "        if len(ids) > 1:\n",
        "        raise\n        if len(ids) > 1:\n",
        "tests/billing/test_sweep.py"
        "::test_one_undecidable_account_neither_stops_the_sweep_nor_unblocks_anybody",
    ),
    Mutation(
        8,
        "each process remembers the limited list for a while",
        "quota/published/limited_set.py",
        "def read(organization_id: UUID, api_token: str) -> Reading:",
        "@__import__('functools').cache\n"
        "def read(organization_id: UUID, api_token: str) -> Reading:",
        "tests/quota/test_gate.py::test_verdicts_are_not_cached_between_checks",
    ),
    Mutation(
        10,
        "an event that is delivered again is billed again",
        "billing/ingestion/ledger_rows.py",
        "        uuid=event.uuid,\n",
        '        uuid=__import__("uuid").uuid4(),\n',
        "tests/billing/ingestion/test_booking.py::test_the_same_event_again_is_a_duplicate_and_counts_once",
    ),
    Mutation(
        10,
        "what cannot be booked is dropped",
        "billing/ingestion/ledger.py",
        "            quarantined[incoming.sha256] = _quarantined(incoming, now)\n",
        "",
        "tests/billing/ingestion/test_booking.py::test_an_unbookable_event_is_quarantined_once_however_often_it_arrives",
    ),
    Mutation(
        11,
        "an event is booked on the organization that its sender names",
        "billing/ingestion/payer.py",
        "    if event.organization_id not in (None, organization_id):",
        "    if event.organization_id:\n"
        "        organization_id = event.organization_id\n"
        "    if False:",
        "tests/billing/ingestion/test_booking.py::test_an_invalid_field_that_affects_money_quarantines_the_event",
    ),
    Mutation(
        12,
        "a gateway is told what is left as if others had not booked",
        "quota/state.py",
        "        allotment -= sum(published.booked.values()) - booked\n",
        "        pass\n",
        "tests/quota/test_gate.py::test_every_group_gets_the_same_remainder_plus_its_own_bookings",
    ),
    Mutation(
        12,
        "work is started with too little left for its first call",
        "quota/gate.py",
        "    if not least:",
        "    if True:",
        "tests/quota/test_gate.py::test_work_is_not_started_with_too_little_left",
    ),
    Mutation(
        12,
        "what a user uses does not count toward their cap",
        "billing/ingestion/cap_counts.py",
        "                counted.usage += row.credits_micro\n",
        "                counted.usage += 0\n",
        "tests/billing/allowances/test_caps.py::test_a_named_user_can_have_a_different_cap_or_none",
    ),
    Mutation(
        14,
        "a reason without a text of its own breaks the denial",
        "workflows/denials.py",
        '_FIRST_SENTENCES.get(verdict.reason or "", _UNKNOWN_REASON)',
        '_FIRST_SENTENCES[verdict.reason or ""]',
        "tests/workflows/test_denials.py::test_each_reason_has_a_first_sentence_of_its_own",
    ),
]

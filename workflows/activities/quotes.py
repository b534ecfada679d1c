"""Activities around a run's quote: make it, and find out what was answered."""

from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone
from temporalio import activity

from workflows.activities import rows
from workflows.quotes import ending, quoting


@dataclass(frozen=True)
class NewQuote:
    """A run to quote, and how many seconds its question waits for an answer."""

    run_id: str
    patience_seconds: float


@dataclass(frozen=True)
class QuoteMade:
    """The notice with the question. None if the run may begin without asking."""

    question_id: str | None = None


@dataclass(frozen=True)
class AnswerWanted:
    """A run whose question may be answered by now. With `is_last`, the workflow stops waiting."""

    run_id: str
    is_last: bool


@dataclass(frozen=True)
class QuoteConcluded:
    """Whether to go on waiting, and if the run does not begin, why."""

    waits: bool = False
    refusal: str = ""


class QuoteActivities:
    """Activities that ask before a run begins whether it may cost that much."""

    @activity.defn
    def quote_run(self, new: NewQuote) -> QuoteMade:
        """Make the run's quote, and claim the question if it has to be asked."""
        run = rows.run(new.run_id)
        if not run.task.has_thread:
            return QuoteMade()
        made = quoting.quote(run, timezone.now(), timedelta(seconds=new.patience_seconds))
        question = quoting.claim_question(made, run)
        return QuoteMade(None if question is None else str(question.pk))

    @activity.defn
    def conclude_quote(self, wanted: AnswerWanted) -> QuoteConcluded:
        """Return what was answered. End the run if it does not begin."""
        run = rows.run(wanted.run_id)
        found = ending.conclude(run, timezone.now(), is_last=wanted.is_last)
        return QuoteConcluded(found.waits, found.refusal)

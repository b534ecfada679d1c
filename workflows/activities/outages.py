"""Report outages and failures of the work to the workflow, which waits for outages only."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from coding_tasks.failures import MustWait, RunFailure
from coding_tasks.outages import DATABASE_OUT
from quota.gate import QuotaUnknown
from workflows.mention_types import STORES_OUT

log = structlog.get_logger(__name__)


@contextmanager
def report_outages() -> Iterator[None]:
    """If the activity has to wait, fail it without further attempts, so that the workflow waits.

    The failure carries the number of earlier attempts, which still count, and the shortest wait in
    seconds.
    """
    before = activity.info().attempt - 1
    try:
        yield
    except MustWait as wait:
        log.info("a call has to wait", activity=activity.info().activity_type, why=str(wait))
        raise ApplicationError(
            wait.summary,
            before,
            wait.retry_after,
            type=type(wait).__name__,
            non_retryable=True,
            category=ApplicationErrorCategory.BENIGN,  # nothing failed
        ) from None
    except (*DATABASE_OUT, QuotaUnknown) as error:
        raise ApplicationError(
            f"our stores are down: {type(error).__name__}",
            before,
            type=STORES_OUT,
            non_retryable=True,
        ) from error


@contextmanager
def report_failures() -> Iterator[None]:
    """If the work fails, fail the activity with the failure's name, which selects the message.

    Temporal's history gets the failure's summary, and the log its full text.
    """
    try:
        yield
    except RunFailure as failure:
        info = activity.info()
        log.warning(
            "work failed",
            activity=info.activity_type,
            workflow=info.workflow_id,
            error=str(failure),
        )
        raise ApplicationError(
            failure.summary, type=type(failure).__name__, non_retryable=failure.permanent
        ) from failure

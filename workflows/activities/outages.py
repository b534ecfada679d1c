"""Distinguish what has to be waited for from failures of the work."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from coding_tasks.failures import MustWait
from coding_tasks.outages import DATABASE_OUT
from quota.gate import QuotaUnknown
from workflows.mention_types import STORES_OUT

log = structlog.get_logger(__name__)


@contextmanager
def outages_named() -> Iterator[None]:
    """Fail the activity as one that has to wait, which ends its attempts: the workflow waits.

    How many attempts came before goes with it, so that the work is given no more than it has, and
    how many seconds to wait at least.
    """
    before = activity.info().attempt - 1
    try:
        yield
    except MustWait as wait:
        log.info("a call has to wait", activity=activity.info().activity_type, why=str(wait))
        raise ApplicationError(
            wait.in_short,
            before,
            wait.retry_after,
            type=type(wait).__name__,
            non_retryable=True,
            category=ApplicationErrorCategory.BENIGN,  # nothing failed
        ) from None
    except (*DATABASE_OUT, QuotaUnknown) as error:
        raise ApplicationError(
            f"our stores are out: {type(error).__name__}",
            before,
            type=STORES_OUT,
            non_retryable=True,
        ) from error

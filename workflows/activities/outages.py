"""Distinguish outages, which the work waits for, from failures of the work."""

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
    """Fail the activity without further attempts if it has to wait: the workflow waits.

    The failure says how many attempts came before, which still count, and the least number of
    seconds to wait.
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

"""Telling an outage of our own stores from failures of the work."""

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio import activity
from temporalio.exceptions import ApplicationError

from coding_tasks.outages import DATABASE_OUT
from quota.gate import QuotaUnknown
from workflows.mention_types import STORES_OUT


@contextmanager
def outages_named() -> Iterator[None]:
    """Fail the activity as one that met an outage, which ends its attempts: the workflow waits.

    How many attempts came before goes with it, so that the work is given no more than it has.
    """
    try:
        yield
    except (*DATABASE_OUT, QuotaUnknown) as error:
        before = activity.info().attempt - 1
        raise ApplicationError(
            f"our stores are out: {type(error).__name__}",
            before,
            type=STORES_OUT,
            non_retryable=True,
        ) from error

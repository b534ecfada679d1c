"""Continue after a failure, and leave the row to a sweep."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from coding_tasks.outages import STORES_AWAY, in_one_line
from workflows.temporal.client import TemporalUnavailable

log = structlog.get_logger(__name__)


@contextmanager
def left_to_a_sweep(what: str, **ids: str) -> Iterator[None]:
    """Log what the block raises, and go on. `what` and `ids` name the row in the log.

    A sweep will handle the row. Failing now would only make Slack deliver the event again.
    """
    try:
        yield
    except TemporalUnavailable as error:
        log.warning("temporal is unavailable", error=str(error), **ids)
    except STORES_AWAY as error:
        log.warning(f"{what} waits for a store", error=in_one_line(error), **ids)
    except Exception:
        log.exception(f"{what} was kept for later", **ids)

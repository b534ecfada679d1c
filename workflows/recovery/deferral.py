"""Going on after a failure to act on a row, because a sweep will act on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from coding_tasks.outages import STORES_AWAY, in_one_line
from workflows.client import TemporalUnavailable

log = structlog.get_logger(__name__)


@contextmanager
def left_to_a_sweep(what: str, **ids: str) -> Iterator[None]:
    """Log what the block raises instead of raising it; `what` and `ids` name the row.

    A sweep will act on the row. Failing now would only make Slack deliver the event again.
    """
    try:
        yield
    except TemporalUnavailable as error:
        log.warning("temporal is unavailable", error=str(error), **ids)
    except STORES_AWAY as error:
        log.warning(f"{what} waits for a store", error=in_one_line(error), **ids)
    except Exception:
        log.exception(f"{what} was kept for later", **ids)

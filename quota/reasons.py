"""The reasons for a limit or a grace, used in every API answer, message and page."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a resource is limited or in grace."""

    LIMIT_REACHED = "limit_reached"
    INSUFFICIENT_REMAINING = "insufficient_remaining"
    ORGANIZATION_INACTIVE = "organization_inactive"
    PROJECT_CAP_REACHED = "project_cap_reached"
    USER_CAP_REACHED = "user_cap_reached"
    RUN_CAP_REACHED = "run_cap_reached"
    SET_BY_HAND = "set_by_hand"


CAPS_REACHED = frozenset(
    {Reason.PROJECT_CAP_REACHED, Reason.USER_CAP_REACHED, Reason.RUN_CAP_REACHED}
)

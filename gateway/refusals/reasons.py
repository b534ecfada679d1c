"""The reasons for a limit: a copy of `quota.reasons`, which the gateway must not import."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a project cannot use a resource."""

    LIMIT_REACHED = "limit_reached"
    INSUFFICIENT_REMAINING = "insufficient_remaining"
    ORGANIZATION_INACTIVE = "organization_inactive"
    PROJECT_CAP_REACHED = "project_cap_reached"
    USER_CAP_REACHED = "user_cap_reached"
    RUN_CAP_REACHED = "run_cap_reached"
    SET_BY_HAND = "set_by_hand"

"""The keys of everything the gateway keeps in its Redis, which is one server, not a cluster."""

from urllib.parse import quote

GROUP_EPOCH = "tollgate:group"
FEED = "tollgate:feed"
LEADER = "tollgate:leader"
OWNERS = "tollgate:owners"
SEQUENCE = "tollgate:sequence"
GENERATION = "tollgate:generation"
REAPED = "tollgate:reaped"
TICKETS = "tollgate:tickets"
PROJECTS = "tollgate:projects"
RESYNC = "tollgate:resync"
REVOKED = "tollgate:revoked"
EVENTS = "tollgate:events"
SET_ASIDE = "tollgate:events:set-aside"
POSTHOG_EVENTS = "tollgate:posthog:events"
POSTHOG_SET_ASIDE = "tollgate:posthog:set-aside"
POSTHOG_LEFT_OUT = "tollgate:posthog:left-out"


def project(project_id: int, resource: str) -> str:
    """Django's last verdict on a project for a resource."""
    return f"tollgate:project:{project_id}:{resource}"


def account(account: str) -> str:
    """Allotment and lifetime counters of an account."""
    return f"tollgate:account:{account}"


def scope(account: str, name: str) -> str:
    """What one project or user may spend, spent and holds: `project:7`, `user:slack:T1:U1`.

    The name is quoted, because a hold separates its scopes by spaces.
    """
    return f"tollgate:scope:{account}:{quote(name, safe=':')}"


def run(task_run_id: str) -> str:
    """What one task run spent and holds."""
    return f"tollgate:run:{task_run_id}"


def holds(owner: str) -> str:
    """The open holds of one process."""
    return f"tollgate:holds:{owner}"


def kept_answer(digest: str) -> str:
    """The answer to the call with an idempotency key, or its state, by the key's digest."""
    return f"tollgate:answer:{digest}"


def disclaimed(call_id: str) -> str:
    """The mark of a call that gave its claim back while Redis could still make that claim."""
    return f"tollgate:disclaimed:{call_id}"


def rate(credential_sha256: str) -> str:
    """The token bucket of one credential."""
    return f"tollgate:bucket:{credential_sha256}"


def rate_unpaid(credential_sha256: str) -> str:
    """The token bucket of its calls that cost nothing, such as counting tokens."""
    return f"tollgate:bucket:unpaid:{credential_sha256}"


def settled(owner: str) -> str:
    """The settled holds of one process, each with the time until which it is remembered."""
    return f"tollgate:settled:{owner}"

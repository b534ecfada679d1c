"""Names of the bot's branches."""

import re
import unicodedata
from uuid import UUID

PREFIX = "tollgate/"
_LONGEST_SLUG = 40
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")


def branch_name(title: str, task_id: UUID) -> str:
    """Return the branch of a task: letters, digits and dashes only, and unique by the task's id.

    So neither git nor a shell gives a meaning to any part of it.
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    slug = _NOT_PLAIN.sub("-", plain)[:_LONGEST_SLUG].strip("-")
    return PREFIX + "-".join(part for part in (slug, task_id.hex[:12]) if part)

"""How old work is when a sweep looks for its workflow, and until when it can begin anew."""

from datetime import timedelta

LOOKED_FOR_AFTER = timedelta(minutes=2)
"""The age of a mention or a task at which a sweep begins to look for its workflow."""
BEGUN_ANEW_WITHIN = timedelta(minutes=15)
"""The greatest age of a mention or a run that begins anew. Nobody still expects an older answer."""

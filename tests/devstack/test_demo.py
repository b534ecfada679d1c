"""`make demo` without a stack says why, and leaves nothing. The whole tour: `test_whole_stack`."""

import os
from pathlib import Path

from tests.devstack.processes import started


def test_a_tour_whose_stack_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "WEB_BODY_TIMEOUT": "soon", "TMPDIR": str(tmp_path)}
    with started(["devstack.demo"], environment) as lines:
        assert lines.end() == 1
    assert "Not seen: the start of the stack" in lines.text
    assert "WEB_BODY_TIMEOUT" in lines.text
    assert list(tmp_path.iterdir()) == []

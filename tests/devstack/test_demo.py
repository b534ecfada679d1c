"""`make demo`: the tour sees every step, inherits no key, and leaves nothing behind."""

import os
from pathlib import Path

import pytest

from tests import settings as suite
from tests.devstack.processes import started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.skipif(suite.ON_POSTGRES, reason="the tour has a database of its own")
def test_the_tour_sees_every_step_and_leaves_nothing(tmp_path: Path) -> None:
    inherited = {"SLACK_CLIENT_ID": "1.2", "ANTHROPIC_API_KEY": "sk-ant-not-to-be-used"}
    with started(["devstack.demo"], {**os.environ, **inherited, "TMPDIR": str(tmp_path)}) as lines:
        assert lines.process.wait(200) == 0, lines.text
        lines.end()
    steps = ["1. A mention that works", "2. Credits burning", "3. A denial in the thread"]
    steps += ["4. A top-up", "5. A mention that works again", "Every step was seen"]
    assert [step for step in steps if step in lines.text] == steps
    assert lines.text.count("Tollgate: [demo model]") == 3
    assert "Top up at" in lines.text
    assert list(tmp_path.iterdir()) == []

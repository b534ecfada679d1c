"""Every recorded history replays on today's workflow, so runs of older workers can continue."""

import asyncio
import importlib
import json
import sys
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from workflows import mention
from workflows.api_task import ApiTaskWorkflow
from workflows.mention_types import GATE_PATCH
from workflows.temporal.isolation import sandboxed_runner

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))
BEFORE_THE_GATE = [path for path in HISTORIES if path.name.startswith("before-the-gate")]


def replay(path: Path, workflow: type) -> None:
    recorded = json.loads(path.read_text())
    history = WorkflowHistory.from_json(recorded["workflow_id"], recorded["history"])
    both = [workflow, ApiTaskWorkflow]
    replayer = Replayer(workflows=both, workflow_runner=sandboxed_runner())
    asyncio.run(replayer.replay_workflow(history))


@pytest.mark.case("W5")
def test_there_are_histories_from_before_and_after_the_gate():
    assert len(BEFORE_THE_GATE) == 2
    assert len(HISTORIES) > 10


@pytest.mark.case("W5")
@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_recorded_history_replays(path: Path):
    replay(path, mention.MentionWorkflow)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_histories_after_the_patch_have_the_gate(path: Path):
    events = json.loads(path.read_text())["history"]["events"]
    markers = json.dumps([each for each in events if "MARKER" in each["eventType"]])
    assert ("core_patch" in markers) == (path not in BEFORE_THE_GATE)


@pytest.mark.case("W5")
@pytest.mark.parametrize("path", BEFORE_THE_GATE, ids=lambda path: path.stem)
def test_without_its_patch_the_gate_would_break_runs_begun_before_it(
    path: Path, tmp_path, monkeypatch
):
    source = Path(mention.__file__).read_text()
    patched = "workflow.patched(GATE_PATCH)"
    assert source.count(patched) == 1
    (tmp_path / "unpatched_mention.py").write_text(source.replace(patched, "True"))
    monkeypatch.syspath_prepend(tmp_path)
    unpatched = importlib.import_module("unpatched_mention")
    monkeypatch.delitem(sys.modules, "unpatched_mention")
    with pytest.raises(NondeterminismError):
        replay(path, unpatched.MentionWorkflow)


def test_the_gates_patch_has_the_name_that_runs_in_the_field_carry():
    assert GATE_PATCH == "posthog-code-slack-billing-gate"

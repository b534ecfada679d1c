"""What is kept of the files that an agent left for people."""

import base64
import json

from coding_tasks.models import CodingTask, RunFile, TaskRun
from coding_tasks.turns import output_files

SECRET = "ghp_" + "a1B2" * 9


def test_secrets_in_names_are_hidden_as_in_texts(workspace, repository):
    task = CodingTask.objects.create(
        project=workspace.project,
        repository=repository,
        workspace=workspace,
        channel_id="C1",
        thread_ts="1.0",
        owner_slack_user_id="U1",
        workflow_id="w",
    )
    run = TaskRun.objects.create(task=task, message_ts="1.0", request="x")
    content = base64.b64encode(SECRET.encode()).decode()
    kept = {"name": f"{SECRET}.log", "content": content}
    refused = {"name": f"{SECRET}.bin", "left_out": True}
    lines = "\n".join(json.dumps(each) for each in (kept, refused)).encode()
    note = output_files.keep(run.pk, lines)
    file = RunFile.objects.get()
    assert SECRET not in f"{note} {file.name} {bytes(file.content).decode()}"
    assert file.name.endswith(".log")

"""After a worker is killed at any point, the mention completes with one task and one answer."""

import json
from collections import Counter

import pytest

from coding_tasks.models import CodingTask, TaskRun
from projects.models import OAuthAccessToken
from tests.workflows.fake_gateway import AGENT
from tests.workflows.worker_process import worker_process
from tests.workflows.world import World
from workflows.models import Mention

ANSWER_KEPT = "after coding_tasks.runs.store"
DEATHS = [
    ANSWER_KEPT,  # the first, because a later worker could be killed by an earlier mention's answer
    "before check_quota",
    "after check_quota",
    "before check_access",
    "before coding_tasks.creation.add_run",
    "after create_task",
    "after coding_tasks.runs.mint_run_token",
    "after run_agent",
    "after workflows.notices._send",
    "after deliver_notice",
    "after close_mention",
]


@pytest.mark.case("W6")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_worker_killed_at_any_point_leaves_one_task_and_one_answer(
    shop: World, environment, settings, tmp_path
):
    log = tmp_path / "worker.log"
    mentions = []
    with worker_process(settings.TEMPORAL_TASK_QUEUE, environment, log, DEATHS) as process:
        for death in DEATHS:
            mentions.append(shop.start(death))
            assert process.stdout.readline().strip() == death, log.read_text()
        for mention in mentions:
            shop.wait_for_end(mention, Mention.State.ANSWERED)

    for mention in mentions:
        assert len(shop.said(mention.ts)) == 1, mention.text
    tasks = Counter(CodingTask.objects.values_list("thread_ts", flat=True))
    assert tasks == Counter(mention.ts for mention in mentions)
    states = TaskRun.objects.values_list("state", flat=True)
    assert list(states) == [TaskRun.State.SUCCEEDED] * len(mentions)
    assert not OAuthAccessToken.objects.exists()
    # A model whose answer was kept is not asked again.
    requests = [json.dumps(request.body) for request in shop.gateway.requests(AGENT)]
    assert sum(ANSWER_KEPT in request for request in requests) == 1

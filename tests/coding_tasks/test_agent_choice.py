"""Which model an agent gets."""

import pytest

from coding_tasks.agent_choice import default_model
from coding_tasks.models import CodingTask, ProjectAgent, Repository


@pytest.mark.parametrize(
    ("agent", "model"),
    [
        ("small", "of-anthropic"),
        ("claude", "of-anthropic"),
        ("codex", "of-openai"),
        ("mini", "of-openai"),
    ],
)
def test_an_agent_gets_a_model_of_the_provider_whose_api_it_speaks(settings, agent, model):
    settings.AGENT_MODEL = "of-anthropic"
    settings.AGENT_OPENAI_MODEL = "of-openai"
    assert default_model(agent) == model


@pytest.mark.parametrize(("agent", "model"), [("codex", "chosen"), ("claude", "of-anthropic")])
def test_the_model_that_a_project_chose_is_for_the_agent_that_it_chose(
    workspace, settings, agent, model
):
    settings.AGENT_MODEL = "of-anthropic"
    ProjectAgent.objects.create(project=workspace.project, agent="codex", model="chosen")
    task = CodingTask(project=workspace.project, repository=Repository(), agent=agent)
    assert task.model_to_use() == model

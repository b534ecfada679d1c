"""Which images an agent shows to its model, and what the answer says about others."""

import pytest

from coding_tasks.material import InputFile, Material
from coding_tasks.turns.prompts import shown_images

FILES = (InputFile("1.txt", b"x"), InputFile("2.png", b"y", is_image=True))


@pytest.mark.parametrize("agent", ["small", "claude", "codex", "mini"])
def test_the_images_are_shown(agent):
    assert shown_images(agent, "a-new-model", Material(files=FILES)) == (["2.png"], "")


def test_a_model_without_images_gets_none_and_the_answer_says_so(settings):
    images, note = shown_images("small", "gpt-3.5-turbo", Material(files=FILES, note="Also this."))
    assert images == []
    assert note == "Also this. The model gpt-3.5-turbo takes no images, so it has not seen yours."


def test_an_agent_without_images_gets_none_and_the_answer_says_so(settings):
    settings.AGENT_COMMANDS = {"other": ["cat"]}
    images, note = shown_images("other", "a-new-model", Material(files=FILES))
    assert (images, note) == ([], "other takes no images, so it may not have seen yours.")


def test_nothing_is_said_without_images(settings):
    settings.AGENT_COMMANDS = {"other": ["cat"]}
    assert shown_images("other", "gpt-3.5-turbo", Material(files=FILES[:1])) == ([], "")

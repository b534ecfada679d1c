"""How the small agent shows images to its model."""

import base64
from pathlib import Path

from tests.coding_tasks.agents.conftest import Agent, call
from tests.image_files import jpeg, png


def sources(body: dict) -> list[dict]:
    """Return the sources of all images in a call."""
    blocks = [block for message in body["messages"] for block in message["content"]]
    return [block["source"] for block in blocks if block["type"] == "image"]


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_images_come_before_the_prompt(agent: Agent, tmp_path: Path) -> None:
    first, second = png(3, 4), jpeg((5, 6))
    images = [written(tmp_path, "1.png", first), written(tmp_path, "2.jpeg", second)]
    agent.model.script("I see.")
    agent.run("what is this?", images=images)
    [body] = agent.bodies()
    assert sources(body) == [
        {"type": "base64", "media_type": f"image/{kind}", "data": base64.b64encode(data).decode()}
        for kind, data in (("png", first), ("jpeg", second))
    ]
    assert body["messages"][0]["content"][-1]["text"] == "what is this?"


def test_a_later_turn_still_sees_the_images(agent: Agent, tmp_path: Path) -> None:
    agent.model.script("I see.", "As I said.")
    session = agent.run(images=[written(tmp_path, "1.png", png())]).one("session")["id"]
    agent.run("and now?", session=session)
    assert len(sources(agent.bodies()[-1])) == 1


def test_new_images_take_the_place_of_earlier_ones(agent: Agent, tmp_path: Path) -> None:
    agent.model.script("I see.", "I see the other one.")
    session = agent.run(images=[written(tmp_path, "1.png", png())]).one("session")["id"]
    agent.run("and this?", images=[written(tmp_path, "1.png", png(9, 9))], session=session)
    body = agent.bodies()[-1]
    assert [source["data"] for source in sources(body)] == [base64.b64encode(png(9, 9)).decode()]
    assert body["messages"][0]["content"][0]["text"] == "[an image of an earlier turn]"


def test_an_images_bytes_do_not_end_the_budget(agent: Agent, tmp_path: Path) -> None:
    """3.7 MB of base64 would be a million tokens, as text."""
    large = written(tmp_path, "1.png", png(tail=b"x" * 2_800_000))
    agent.model.script(call("list"), "I see a list.")
    ran = agent.run(images=[large], tokens=200_000)
    assert ran.one("answer") == {"type": "answer", "text": "I see a list.", "complete": True}
    assert len(sources(agent.bodies()[-1])) == 1

"""What a call with images holds: what they can cost, and not the price of their base64 as text."""

import base64
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import wait_until
from tests.gateway.bodies import CHAT, chat_body
from tests.gateway.conftest import World, messages_body
from tests.gateway.fake_provider import Script, Seen, default_script
from tests.image_files import png

IMAGE = base64.b64encode(png(tail=b"x" * 300_000)).decode()
SOURCE = {"type": "base64", "media_type": "image/png", "data": IMAGE}
URL = f"data:image/png;base64,{IMAGE}"
RESPONSES = "/slack_app/v1/responses"


def messages(*parts: dict) -> tuple[str, dict]:
    body = messages_body(messages=[{"role": "user", "content": list(parts)}])
    return "/slack_app/v1/messages", body


def tool_result(*parts: dict) -> tuple[str, dict]:
    """Return a call like those of Claude Code, which reads images with a tool."""
    return messages({"type": "tool_result", "tool_use_id": "t", "content": list(parts)})


def chat(*parts: dict) -> tuple[str, dict]:
    return CHAT, chat_body(messages=[{"role": "user", "content": list(parts)}])


def responses(*parts: dict) -> tuple[str, dict]:
    item = {"type": "message", "role": "user", "content": list(parts)}
    return RESPONSES, {"model": "gpt-4o", "input": [item], "max_output_tokens": 100}


def function_output(*parts: dict) -> tuple[str, dict]:
    """Return a call like those of Codex, whose tool shows an image."""
    item = {"type": "function_call_output", "call_id": "c", "output": list(parts)}
    return RESPONSES, {"model": "gpt-4o", "input": [item], "max_output_tokens": 100}


def held(world: World, path: str, body: dict) -> int:
    """Return the micro-credits that a call holds while the provider works on it."""
    gate = threading.Event()

    def script(seen: Seen) -> Script:
        answer = default_script(seen)
        answer.gate = gate
        return answer

    world.provider.script = script
    project = world.tollgate.project(credits=10_000)
    token = world.tollgate.token(project)
    with ThreadPoolExecutor() as pool:
        call = pool.submit(world.post, token, path, body)
        try:
            wait_until(lambda: world.account(project)["held"] > 0, what="the hold")
            return world.account(project)["held"]
        finally:
            gate.set()
            assert call.result().status_code == 200


@pytest.mark.parametrize(
    ("call", "image", "text", "most"),
    [
        (messages, {"type": "image", "source": SOURCE}, "text", 4_784),
        (tool_result, {"type": "image", "source": SOURCE}, "text", 4_784),
        (chat, {"type": "image_url", "image_url": {"url": URL}}, "text", 48_169),
        (responses, {"type": "input_image", "image_url": URL}, "input_text", 48_169),
        (function_output, {"type": "input_image", "image_url": URL}, "input_text", 48_169),
    ],
)
def test_an_image_holds_what_it_can_cost(world: World, call, image, text, most) -> None:
    """`most` are the tokens of the dearest image, as the providers publish them."""

    def of_text(size: int) -> int:
        return held(world, *call({"type": text, "text": "x" * size}))

    one, two = held(world, *call(image)), held(world, *call(image, image))
    assert of_text(most) <= one < of_text(2 * most)
    assert two - one > of_text(2 * most) - of_text(most) - of_text(10), "each image counts"
    assert two > of_text(2 * most)

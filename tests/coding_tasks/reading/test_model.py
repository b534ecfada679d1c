"""Asking a model through the gateway: one attempt, and what each refusal means."""

import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from coding_tasks.failures import (
    AnswerLost,
    CreditsHeld,
    GatewayUnavailable,
    ModelFailed,
    ModelRefused,
    OutOfCredits,
)
from coding_tasks.material import InputFile, Material
from coding_tasks.reading.answering_agent import AnsweringAgent
from coding_tasks.reading.assignments import Assignment, ModelAccess, Turn, trace_of
from coding_tasks.reading.model import Question, ask
from tests.fakes import Reply
from tests.workflows.fake_gateway import AGENT, FakeGateway

QUESTION = Question(
    "claude-sonnet-4-6", "Be brief.", [{"role": "user", "content": "Hello?"}], 100, 5.0
)


@pytest.fixture(scope="module")
def gateway():
    with FakeGateway() as running:
        yield running


@pytest.fixture
def access(gateway) -> ModelAccess:
    gateway.reset()
    return ModelAccess(
        f"{gateway.url}/slack_app", "pha_token-of-the-run", trace_of("mention-T1-C1-100.1")
    )


def test_the_answer_is_the_text_of_the_model(gateway, access):
    gateway.answer_next("Hello!")
    assert ask(access, QUESTION) == "Hello!"
    [request] = gateway.requests(AGENT)
    assert request.headers["authorization"] == "Bearer pha_token-of-the-run"
    assert request.body["model"] == "claude-sonnet-4-6"
    assert request.body["system"] == "Be brief."


def test_a_call_says_which_workflow_it_was_made_for(gateway, access):
    ask(access, QUESTION)
    [request] = gateway.requests()
    version, trace, parent, flags = request.headers["traceparent"].split("-")
    assert (version, flags) == ("00", "01")
    assert trace == access.trace_id == trace_of("mention-T1-C1-100.1")
    assert re.fullmatch("[0-9a-f]{32}", trace)
    assert re.fullmatch("[0-9a-f]{16}", parent)


def test_a_provider_key_of_the_environment_is_never_sent(gateway, access, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
    ask(access, QUESTION)
    [request] = gateway.requests()
    assert "x-api-key" not in request.headers
    assert "sk-ant-secret" not in str(request.headers)


def test_repr_does_not_show_the_token(access):
    assert "pha_" not in repr(access)


def test_refusal_for_lack_of_credits_raises_out_of_credits(gateway, access):
    gateway.refuse_next("slack_app")
    with pytest.raises(OutOfCredits) as refused:
        ask(access, QUESTION)
    assert refused.value.resets_at.isoformat() == "2030-01-01T00:00:00+00:00"
    assert len(gateway.requests()) == 0


@pytest.mark.parametrize("cause", ["run_cap_reached", "user_cap_reached"])
def test_a_reached_cap_raises_out_of_credits(gateway, access, cause):
    gateway.refuse_next("slack_app", cause=cause)
    with pytest.raises(OutOfCredits) as refused:
        ask(access, QUESTION)
    assert refused.value.cause == cause


@pytest.mark.parametrize("status", [401, 408, 409, 429, 500, 502, 503, 529])
def test_temporary_failures_are_not_retried_here(gateway, access, status):
    gateway.fail_next(status)
    with pytest.raises(ModelFailed) as failed:
        ask(access, QUESTION)
    assert not failed.value.permanent
    assert len(gateway.requests()) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422])
def test_permanent_failures_are_marked_permanent(gateway, access, status):
    gateway.fail_next(status, "invalid_request_error")
    with pytest.raises(ModelRefused, match="invalid_request_error") as failed:
        ask(access, QUESTION)
    assert failed.value.permanent


def test_should_retry_header_of_the_gateway_decides(gateway, access):
    gateway.fail_next(429, headers={"x-should-retry": "false"})
    with pytest.raises(ModelRefused):
        ask(access, QUESTION)


def test_credits_that_other_calls_hold_are_waited_for(gateway, access):
    gateway.refuse_next("slack_app", retry=True)
    with pytest.raises(CreditsHeld) as held:
        ask(access, QUESTION)
    assert held.value.retry_after == 1


def test_no_answer_in_time_is_worth_another_attempt(gateway, access):
    gateway.hang_next(2)
    impatient = Question(QUESTION.model, "", QUESTION.messages, 100, 0.05)
    with pytest.raises(ModelFailed) as failed:
        ask(access, impatient)
    assert not failed.value.permanent


def test_a_gateway_that_is_down_is_waited_for():
    with pytest.raises(GatewayUnavailable):
        ask(ModelAccess("http://127.0.0.1:1/slack_app", "pha_x", trace_of("x")), QUESTION)


@pytest.fixture
def silent() -> Iterator[ModelAccess]:
    """A gateway that accepts connections but never answers, as if frozen."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/slack_app"
        yield ModelAccess(url, "pha_x", trace_of("x"))


def test_a_frozen_gateway_is_not_mistaken_for_a_slow_provider(silent, monkeypatch):
    monkeypatch.setattr("coding_tasks.reading.model._CONNECT_TIMEOUT", 0.2)
    with pytest.raises(AnswerLost):
        ask(silent, Question(QUESTION.model, "", QUESTION.messages, 100, 0.05))


def test_a_gateway_that_dies_during_a_call_is_not_mistaken_for_the_provider():
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def die() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)

        dying = pool.submit(die)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/slack_app"
        with pytest.raises(AnswerLost):
            ask(ModelAccess(url, "pha_x", trace_of("x")), QUESTION)
        dying.result()


@pytest.mark.parametrize("body", [b"<html>", b"null", b"{}", b'{"content": "Hello!"}', b"[" * 9999])
def test_an_answer_of_another_shape_is_worth_another_attempt(body):
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):  # closing with unread bytes would reset it
                    pass

        answering = pool.submit(answer)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/slack_app"
        with pytest.raises(ModelFailed, match="not one of the API's") as failed:
            ask(ModelAccess(url, "pha_x", trace_of("x")), QUESTION)
        answering.result()
    assert not failed.value.permanent


def test_an_answer_that_is_cut_off_is_worth_another_attempt(gateway, access):
    gateway.script(Reply("half", cut_after=1))
    with pytest.raises(ModelFailed) as failed:
        ask(access, QUESTION)
    assert not failed.value.permanent


class Files:
    def files(self):
        return ["README.md", "src/cart.py"]

    def read(self, path, limit):
        return {"README.md": b"# Shop", "src/cart.py": b"cart = []"}[path][:limit]


def test_the_agent_shows_the_model_files_and_earlier_turns(gateway, access):
    gateway.answer_next("A list.")
    assignment = Assignment(
        "acme/shop", "and in cart.py?", (Turn("what is this?", "It is a shop."),)
    )
    assert AnsweringAgent("claude-sonnet-4-6").work(assignment, Files(), access) == "A list."
    [request] = gateway.requests(AGENT)
    for shown in ("acme/shop", "src/cart.py", "cart = []", "# Shop"):
        assert shown in request.body["system"]
    assert request.body["messages"] == [
        {"role": "user", "content": "what is this?"},
        {"role": "assistant", "content": "It is a shop."},
        {"role": "user", "content": "and in cart.py?"},
    ]


def test_the_agent_shows_the_model_quoted_texts_and_images(gateway, access):
    gateway.answer_next("A cart.")
    image = InputFile("1.png", b"pixels", is_image=True)
    material = Material("U2 attached shot.png: 1.png", (image,), "Not looked at: a.zip.")
    assignment = Assignment("acme/shop", "what is this?", material=material)
    answer = AnsweringAgent("claude-sonnet-4-6").work(assignment, Files(), access)
    assert answer == "A cart.\n\nNot looked at: a.zip."
    [request] = gateway.requests(AGENT)
    [message] = request.body["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "text", "image", "text"]
    assert message["content"][0]["text"] == "U2 attached shot.png: 1.png"
    assert message["content"][2]["source"] == {
        "type": "base64", "media_type": "image/png", "data": "cGl4ZWxz",
    }  # fmt: skip
    assert message["content"][3]["text"] == "what is this?"


def test_a_model_that_takes_no_images_gets_none_and_the_answer_says_so(gateway, access):
    gateway.answer_next("Shrug.")
    image = InputFile("1.png", b"pixels", is_image=True)
    assignment = Assignment("acme/shop", "?", material=Material("1.png", (image,)))
    answer = AnsweringAgent("gpt-3.5-turbo").work(assignment, Files(), access)
    assert answer.startswith("Shrug.\n\nThe model gpt-3.5-turbo takes no images")
    [message] = gateway.requests()[-1].body["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "text"]


def test_only_the_end_of_a_very_long_conversation_is_sent(gateway, access):
    earlier = tuple(Turn(f"request {n}", "é" * 10_000) for n in range(10))
    assignment = Assignment("acme/shop", "and now?", earlier)
    AnsweringAgent("claude-demo").work(assignment, Files(), access)
    asked = [each["content"] for each in gateway.requests()[-1].body["messages"]]
    assert [text for text in asked if text.startswith("request")] == ["request 8", "request 9"]
    assert asked[-1] == "and now?"


def test_only_some_very_long_paths_are_listed(gateway, access):
    class Deep(Files):
        def files(self):
            return [f"{'deep/' * 200}{number}.bin" for number in range(100)]

        def read(self, path, limit):
            return b"\0"

    AnsweringAgent("claude-demo").work(Assignment("acme/shop", "hello"), Deep(), access)
    system = gateway.requests()[-1].body["system"]
    assert len(system) < 25_000
    assert "… and 81 more" in system


def test_only_some_of_very_many_files_are_listed(gateway, access):
    class Many(Files):
        def files(self):
            return [f"{number}.bin" for number in range(1_000)]

        def read(self, path, limit):
            return b"\0"

    AnsweringAgent("claude-sonnet-4-6").work(Assignment("acme/shop", "hello"), Many(), access)
    [request] = gateway.requests(AGENT)
    assert "399.bin\n… and 600 more" in request.body["system"]
    assert "400.bin" not in request.body["system"]

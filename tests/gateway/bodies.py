"""Paths of the OpenAI APIs, and a body for them."""

CHAT = "/slack_app/v1/chat/completions"


RESPONSES = "/slack_app/v1/responses"


def chat_body(**fields):
    return {
        "model": "gpt-4o",
        "max_completion_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}],
        **fields,
    }

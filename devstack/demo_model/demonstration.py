"""The demo model's own answers, which nobody can mistake for a real model's."""

import re

from devstack.demo_model.editing import LABEL, edit
from devstack.demo_model.script import Prompt, Reply

_LISTED = re.compile(r"^[-*\s]*([\w.-]+/[\w.-]+)\s*$", re.MULTILINE)
_FILE = re.compile(r"(?<![\w/.-])(?:[\w-]+/)*[\w-]+\.(?:md|py|js|ts|toml|txt|html|css|go|rs)\b")


def reply_to(prompt: Prompt) -> Reply:
    """Return the reply to a prompt that no test scripted.

    If a coding agent offers its tools, the reply edits the demo's repository with them. Other
    callers get a text.
    """
    return edit(prompt) or Reply(demonstration(prompt))


def demonstration(prompt: Prompt) -> str:
    """Return an answer that nobody can mistake for a real model's.

    If the system prompt asks for one of its listed repositories, name the one that fits. Otherwise
    say which files were shown and what was asked.
    """
    if "choose the one repository" in prompt.system.lower():
        return _choice(_LISTED.findall(prompt.system), prompt.last)
    files = list(dict.fromkeys(_FILE.findall(prompt.system)))[:6]
    shown = f" I was shown {', '.join(files)}." if files else ""
    request = " ".join(prompt.last.split())
    quoted = request if len(request) <= 200 else f"{request[:199]}…"
    return (
        f"{LABEL} This is a scripted answer: no real model read your request.{shown}"
        f" You asked: {quoted}"
    )


def _choice(listed: list[str], request: str) -> str:
    """Return the listed repository whose name has a word in common with the request, or `none`."""
    words = set(re.findall(r"[a-z0-9]+", request.lower()))
    for repository in listed:
        name = repository.partition("/")[2].lower()
        if words & set(re.findall(r"[a-z0-9]{3,}", name)):
            return repository
    return "none"

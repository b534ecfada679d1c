"""The prompt of an agent: the request, what it has to know for it, and the images."""

from django.conf import settings

from coding_tasks import runs
from coding_tasks.agents.description import MOST_PROMPT, model_takes_images
from coding_tasks.agents.registry import registry
from coding_tasks.material import Material
from coding_tasks.models import TaskRun
from coding_tasks.reading.assignments import Turn

_EARLIER = "Earlier in this conversation:"
_STOPPED = (
    "The work on the request below was stopped before it was done. Go on with it. Look at the "
    "files first: they may or may not have what you had changed."
)
"""The beginning of a request that goes on with another. The other request follows."""


def prompt_of(run: TaskRun, material: str, *, resumes: bool) -> str:
    """Return the request, after the material and the earlier turns that the agent doesn't know."""
    earlier = () if resumes else runs.earlier_turns(run)
    request = run.request.strip() or "(no text)"
    left = MOST_PROMPT - len(request.encode()) - len(_EARLIER) - 100
    parts = [_cut(material, left)] if material else []
    left -= len(material.encode())
    for turn in reversed(earlier):
        said = _said(turn)
        left -= len(said.encode())
        if left < 0:
            break
        parts.insert(0, said)
    if len(parts) > bool(material):
        parts.insert(0, _EARLIER)
    parts.append(f"Now do this:\n{request}" if parts else request)
    return _cut("\n\n".join(parts), MOST_PROMPT)


def shown_images(agent_name: str, model: str, material: Material) -> tuple[list[str], str]:
    """Return the names of the images that the agent shows to the model, and the answer's note.

    The note says which files the agent did not get, and if it or its model takes no images.
    """
    images = [file.name for file in material.files if file.is_image]
    agent = registry(settings.AGENT_COMMANDS).get(agent_name)
    why = ""
    if images and agent is not None:
        if not agent.takes_images:
            why = f"{agent.title} takes no images, so it may not have seen yours."
        elif not model_takes_images(model):
            why = f"The model {model} takes no images, so it has not seen yours."
    return [] if why else images, " ".join(filter(None, [material.note, why]))


def going_on(request: str) -> str:
    """Return the request that goes on with stopped work. `request` is what was asked for."""
    return request if request.startswith(_STOPPED) else f"{_STOPPED}\n{request}"


def _cut(text: str, size: int) -> str:
    """Return the first `size` bytes of a text."""
    return text.encode()[: max(0, size)].decode(errors="ignore")


def _said(turn: Turn) -> str:
    return f"Asked:\n{turn.request}\n\nAnswered:\n{turn.answer}"

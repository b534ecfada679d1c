"""What an agent gets besides the request: quoted text, and files."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class InputFile:
    """A file for the agent. We give it its name, so the name is safe."""

    name: str
    content: bytes = field(repr=False)
    is_image: bool = False


@dataclass(frozen=True)
class Material:
    """Texts and files of a thread. Others wrote them, so the prompt only quotes them."""

    text: str = field(default="", repr=False)
    files: tuple[InputFile, ...] = ()
    note: str = field(default="", repr=False)
    """Sentences for the answer, about files of the request that the agent did not get."""

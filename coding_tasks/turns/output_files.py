"""Judge the files that an agent left for people, and keep images and texts, such as logs."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from django.db import transaction

from coding_tasks.agent_worker.job import MOST_OUTPUT_BYTES, MOST_OUTPUT_FILES
from coding_tasks.models.kept_files import RunFile
from coding_tasks.publishing.secrets import hide_secrets
from coding_tasks.storable import storable
from coding_tasks.turns.images import Damaged, image_of

_UNSAFE = re.compile(r"[^\w.+ -]|^[. ]+")
_TEXTS = frozenset(
    {".txt", ".log", ".md", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".diff"}
    | {".patch", ".xml", ".sql"}
)
"""Endings that texts keep. With another one, such as .html, a program could run them."""
_LONGEST_NAME = 80
_MOST_NAMED = 5


class _NotKept(Exception):
    """The file is not kept. The message says why, in a few words."""


def keep(run_id: Any, lines: bytes) -> str:
    """Keep what an agent worker read from the agent's folder, in place of earlier files.

    `lines` is what `Workspace.read_folder` returned. It is hostile. Returns the answer's note about
    files that are not kept, or nothing.
    """
    kept: list[RunFile] = []
    refused: list[str] = []
    left = MOST_OUTPUT_BYTES
    for told in _told(lines):
        name = _safe_name(told.get("name"))
        try:
            if len(kept) == MOST_OUTPUT_FILES:
                raise _NotKept("there are too many files")
            content = _content(told, left)
            left -= len(content)
            kept.append(_file(run_id, len(kept), name, content))
        except _NotKept as reason:
            refused.append(f"{name} ({reason})")
    with transaction.atomic():
        RunFile.objects.filter(run=run_id).delete()
        RunFile.objects.bulk_create(kept)
    return _note(refused)


def _told(lines: bytes) -> Iterator[dict[str, Any]]:
    for line in lines.splitlines()[: 20 * MOST_OUTPUT_FILES]:
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(told, dict):
            yield told


def _content(told: dict[str, Any], most: int) -> bytes:
    encoded = told.get("content")
    if not isinstance(encoded, str):
        raise _NotKept("there are too many files, or it is too large")
    try:
        content = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise _NotKept("it is damaged") from None
    if not content:
        raise _NotKept("it is empty")
    if len(content) > most:
        raise _NotKept("it is too large")
    return content


def _file(run_id: Any, number: int, name: str, content: bytes) -> RunFile:
    """Return the row of a file, whose name ends as its content says. Raises `_NotKept`."""
    try:
        image = image_of(content)
    except Damaged as error:
        raise _NotKept("it is a damaged image") from error
    path = PurePosixPath(name)
    if image is not None:
        if image.is_too_large:
            raise _NotKept("it has too many pixels")
        name = f"{path.stem}.{image.kind}"
    else:
        content = hide_secrets(_text(content)).encode()
        if path.suffix.lower() not in _TEXTS:
            name = f"{name}.txt"
    return RunFile(run_id=run_id, number=number, name=name, content=content)


def _text(content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _NotKept("it is neither text nor an image") from error
    if "\0" in text:
        raise _NotKept("it is neither text nor an image")
    return text


def _safe_name(name: object) -> str:
    """Return a name for people, without paths, lines, control characters and secrets."""
    return _UNSAFE.sub("_", hide_secrets(storable(str(name))))[-_LONGEST_NAME:] or "file"


def _note(refused: Iterable[str]) -> str:
    named = list(refused)
    if not named:
        return ""
    more = len(named) - _MOST_NAMED
    listed = [*named[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])]
    return f"Not posted: {', '.join(listed)}."

"""The tools of `small_agent.py`, and their descriptions for the model.

All results are bounded. The sandbox keeps commands from doing harm; checks here only catch
mistakes.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

ROOT = Path.cwd().resolve()
MOST_OUTPUT = 16_000  # characters that a tool returns
MOST_NAMES, MOST_MATCHES, MOST_FILE = 500, 100, 1_000_000  # that `list` and `search` look at
SEARCH_SECONDS, RUN_SECONDS = 30, 600
BROKEN = (OSError, ValueError, LookupError, TypeError, RuntimeError, re.error, HTTPException)


def report(kind: str, **fields: object) -> None:
    """Write one event."""
    print(json.dumps({"type": kind, **fields}), flush=True)


def bounded(text: str, most: int = MOST_OUTPUT) -> str:
    """Return valid Unicode of about `most` characters at most, cut in the middle."""
    if len(text) > most:
        cut = f"\n[… {len(text) - most} characters left out …]\n"
        text = text[: most * 2 // 3] + cut + text[-most // 3 :]
    return text.encode("utf-8", "replace").decode()


def inside(path: str, *, file: bool = False) -> Path:
    """Return the path in the repository, after links. With `file` it must be a regular file."""
    found = (ROOT / path).resolve()
    if ".git" in found.relative_to(ROOT).parts:  # which fails outside the repository
        raise ValueError("the files of git are not for you")
    if file and not found.is_file():
        raise ValueError(f"{path} is not a file")
    return found


def names_below(path: str) -> Iterator[str]:
    """Yield the names of all files, without following links."""
    start = inside(path)
    alone: Any = [(str(start.parent), [], [start.name])] if start.is_file() else []
    for folder, folders, files in alone or os.walk(start):
        folders[:] = sorted(name for name in folders if name != ".git")
        yield from (os.path.relpath(os.path.join(folder, name), ROOT) for name in sorted(files))


def list_files(path: str = "") -> str:
    """List the files below a folder."""
    names = list(itertools.islice(names_below(path), MOST_NAMES))
    more = "\n[there may be more: list a folder, or search]" if len(names) == MOST_NAMES else ""
    return ("\n".join(names) or "[no files]") + more


def search(pattern: str, path: str = "") -> str:
    """Return the lines that match a regular expression, as `file:line: text`."""
    wanted, found, ends = re.compile(pattern), [], time.monotonic() + SEARCH_SECONDS
    for name in names_below(path):
        file = ROOT / name
        if file.is_symlink() or not file.is_file() or file.stat().st_size > MOST_FILE:
            continue
        data = file.read_bytes()
        lines = [] if b"\0" in data else data.decode("utf-8", "replace").splitlines()
        found += [f"{name}:{n}: {x[:300]}" for n, x in enumerate(lines, 1) if wanted.search(x)]
        if len(found) > MOST_MATCHES or time.monotonic() > ends:
            return "\n".join([*found[:MOST_MATCHES], "[there may be more]"])
    return "\n".join(found) or "[no match]"


def read(path: str, start: int = 1, lines: int = 400) -> str:
    """Return a file, or `lines` lines of it from `start` on."""
    with inside(path, file=True).open("rb") as opened:
        pieces = iter(lambda: opened.readline(1_000), b"")  # a longer line comes in pieces
        kept = list(itertools.islice(pieces, start - 1, start - 1 + min(lines, 1_000)))
        more = f"\n[there is more from line {start + len(kept)} on]" if opened.read(1) else ""
    text = b"".join(kept)
    return "[a binary file]" if b"\0" in text else text.decode("utf-8", "replace") + more


def write(path: str, text: str) -> str:
    """Write a whole file."""
    file = inside(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    report("edit", path=path)
    return f"wrote {len(text)} characters"


def edit(path: str, old: str, new: str) -> str:
    """Replace a text that occurs once in a file."""
    file = inside(path, file=True)
    data = file.read_bytes()
    if not old or data.count(old.encode()) != 1:
        raise ValueError(f"the old text must occur once in {path}, not {data.count(old.encode())}")
    file.write_bytes(data.replace(old.encode(), new.encode()))
    report("edit", path=path)
    return "done"


def run(command: str, seconds: float = 120) -> str:
    """Run a shell command in the repository; return its output and exit status."""
    report("command", command=bounded(command, 4_000))
    with tempfile.TemporaryFile() as output:
        files: Any = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        process = subprocess.Popen(["/bin/sh", "-c", command], start_new_session=True, **files)
        try:
            status = f"exit status {process.wait(min(max(seconds, 0.1), RUN_SECONDS))}"
        except subprocess.TimeoutExpired:
            status = "it took too long and was ended"
        with contextlib.suppress(ProcessLookupError):  # what it left in the background ends too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.seek(max(output.seek(0, os.SEEK_END) - MOST_FILE, 0))
        text = output.read().decode("utf-8", "replace")
    return f"{bounded(text, MOST_OUTPUT - 100)}\n[{status}]"


def schema(name: str, function: Any) -> dict[str, Any]:
    """Return the description of a tool for the model, from its signature and docstring."""
    parameters = inspect.signature(function).parameters.values()
    types = {p.name: {"type": "string" if p.annotation == "str" else "number"} for p in parameters}
    needed = [p.name for p in parameters if p.default is p.empty]
    wanted = {"type": "object", "properties": types, "required": needed}
    return {"name": name, "description": function.__doc__, "input_schema": wanted}


FUNCTIONS = {f.__name__.partition("_")[0]: f for f in (list_files, search, read, write, edit, run)}
TOOLS = [schema(name, function) for name, function in FUNCTIONS.items()]


def use(name: str, given: Any, left: float) -> tuple[str, bool]:
    """Use a tool, for at most `left` seconds; return what it returned, and whether it failed."""
    if name not in ("write", "edit", "run"):  # which report what they do
        report("tool", name=name, detail=bounded(json.dumps(given), 300))
    try:
        if name == "run":
            given = {**given, "seconds": min(int(given.get("seconds", 120)), left)}
        result, failed = bounded(FUNCTIONS[name](**given)), False
    except BROKEN as error:
        result, failed = bounded(f"{type(error).__name__}: {error}"), True
    report("result", text=bounded(result, 4_000), failed=failed)
    return result, failed

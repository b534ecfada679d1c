"""Mutations of Lua scripts: comparisons, boundaries, conditions and forgotten statements."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.mutations.mutation import CHOSEN_FREELY, Mutation, mutation_of

SWAPPED = {
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "==": ("~=",),
    "~=": ("==",),
    "and": ("or",),
    "or": ("and",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
    "true": ("false",),
    "false": ("true",),
}
_TOKEN = re.compile(
    r"""
    (?P<skip>--[^\n]*|(?:KEYS|ARGV)\[\d+\]|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|\.\.)
    |(?P<number>\b\d+\b)
    |(?P<operator><=|>=|==|~=|(?<![=<>~])[<>]|\band\b|\bor\b|\btrue\b|\bfalse\b|[-+*/])
    """,
    re.VERBOSE,
)
_CONDITION = re.compile(r"\b(?P<word>if|elseif)\b(?P<condition>.*?)\bthen\b", re.DOTALL)
_UNTIL = re.compile(r"\b(?P<word>until)\b(?P<condition>[^\n]*)")
_STATEMENT = re.compile(
    r"^[ ]*(?:redis\.call\(|[a-z_]+\(|[a-z_]+(?:\[[^\]\n]+\])?(?:, [a-z_]+)* = )", re.MULTILINE
)
_TIME = re.compile(r"\b(?:now|age)\s*$")
"""Times are compared in milliseconds. No test can choose the one in which a script runs, so none
notices that such a boundary moved by one."""
_ZERO = re.compile(r"\bor '0'")


def mutations(root: Path, file: str) -> Iterator[Mutation]:
    """Yield every mutation of a script."""
    source = (root / file).read_text()
    seen = set()
    for mutated in _texts(source):
        found = mutation_of(file, "", source, mutated)
        if found and mutated not in seen:
            seen.add(mutated)
            yield found


def _texts(source: str) -> Iterator[str]:
    code = _without_comments(source)
    for match in _TOKEN.finditer(source):
        if match["skip"]:
            continue
        token, start, end = match[0], match.start(), match.end()
        if match["number"]:
            if int(token) >= CHOSEN_FREELY:
                continue
            for number in (int(token) + 1, int(token) - 1):
                yield source[:start] + str(number).replace("-1", "(-1)") + source[end:]
            continue
        swapped = SWAPPED[token]
        if _TIME.search(source[:start]):
            yield source[:start] + swapped[-1] + source[end:]
            continue
        for other in swapped:
            yield source[:start] + other + source[end:]
        if token in ("<", "<=", ">", ">="):
            for step in ("+ 1 ", "- 1 "):
                yield source[:start] + step + source[start:]
    for match in (*_CONDITION.finditer(code), *_UNTIL.finditer(code)):
        start, end = match.span("condition")
        yield f"{source[:start]} not ({source[start:end].strip()}) {source[end:]}"
    for match in _STATEMENT.finditer(code):
        end = _end_of_statement(code, match.end())
        yield source[: match.start()] + source[end:]
    for match in _ZERO.finditer(code):
        yield source[: match.end() - 2] + "1" + source[match.end() - 1 :]


def _without_comments(source: str) -> str:
    """Return the source with comments blanked, so that positions stay."""
    return re.sub(
        r"'(?:[^'\\\n]|\\.)*'|--[^\n]*",
        lambda match: match[0] if match[0][0] == "'" else " " * len(match[0]),
        source,
    )


def _end_of_statement(code: str, position: int) -> int:
    """Return where the statement ends: at the first line end outside parentheses and braces."""
    start = code.rfind("\n", 0, position) + 1
    depth = 0
    for index in range(start, len(code)):
        if code[index] in "({":
            depth += 1
        elif code[index] in ")}":
            depth -= 1
        elif code[index] == "\n" and depth == 0:
            if re.match(r"\s+(and|or|\.\.)\b", code[index:]):
                continue
            return index
    return len(code)

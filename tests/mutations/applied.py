"""Make a mutation in a running process, where its module is imported already."""

import functools
import gc
from collections import defaultdict
from pathlib import Path
from types import CodeType, FunctionType

from gateway.money.prices import Prices
from gateway.network.redis_connection import Script
from quota.published import redis_client
from tests.mutations.mutation import Mutation

FOLDERS = ("billing", "quota", "gateway", "projects")


class NotApplied(Exception):
    """The mutation cannot be made in a running process, so there is no verdict about it."""


class Objects:
    """The objects of this process that a mutation concerns: functions, their caches, scripts.

    Finding them touches every object. It is done before a fork, which then copies less memory.
    """

    def __init__(self) -> None:
        self.functions: dict[str, list[FunctionType]] = defaultdict(list)
        self.caches: list[functools._lru_cache_wrapper] = []
        self.scripts: list[Script] = []
        self.prices: list[Prices] = []
        gc.unfreeze()  # the gateway's start hides objects from the collector
        for found in gc.get_objects():
            if type(found) is FunctionType:
                self.functions[found.__code__.co_filename].append(found)
            elif type(found) is Script:
                self.scripts.append(found)
            elif type(found) is Prices:
                self.prices.append(found)
            elif type(found) is functools._lru_cache_wrapper and _is_ours(found):
                self.caches.append(found)

    def forget_caches(self) -> None:
        """Empty the caches of our functions, which hold what the code returned before."""
        for cache in self.caches:
            cache.cache_clear()
        for prices in self.prices:
            prices.forget()


def apply(mutation: Mutation, root: Path, objects: Objects) -> None:
    """Replace the code of the functions that the mutation changes.

    The file must still have its original text. Raises `NotApplied` or `SyntaxError`.
    """
    path = root / mutation.file
    if path.suffix == ".lua":
        _read_scripts_again(path, mutation, objects)
        return
    original = compile(path.read_text(), str(path), "exec")
    mutated = compile(mutation.mutated, str(path), "exec")
    changed = _changed(original, mutated)
    if changed is None:
        raise NotApplied("only functions can be changed in a running process")
    _replace(changed, objects.functions[str(path)])


def _is_ours(found: object) -> bool:
    return str(getattr(found, "__module__", "")).partition(".")[0] in FOLDERS


def _read_scripts_again(path: Path, mutation: Mutation, objects: Objects) -> None:
    original = path.read_text()
    path.write_text(mutation.mutated)
    try:
        for script in objects.scripts:
            script.__init__(script.name)
        redis_client.script.cache_clear()
        for file in path.parent.glob("[!_]*.lua"):
            if "quota" in mutation.file:
                redis_client.script(file.stem)
    finally:
        path.write_text(original)


def _changed(original: CodeType, mutated: CodeType) -> dict[tuple[str, int], CodeType] | None:
    """Return the outermost functions that differ, or None if code of a module or class does."""
    if not original.co_flags & 0x2 and _own(original) != _own(mutated):  # CO_NEWLOCALS
        return None
    found = {}
    pairs = zip(_nested(original), _nested(mutated), strict=True)
    for one, other in pairs:
        if one == other:
            continue
        if one.co_flags & 0x2 and one.co_flags & 0x1:
            found[one.co_qualname, one.co_firstlineno] = other
            continue
        below = _changed(one, other)
        if below is None:
            return None
        found |= below
    return found


def _own(code: CodeType) -> tuple:
    constants = [repr(value) for value in code.co_consts if not isinstance(value, CodeType)]
    return code.co_code, constants, code.co_names


def _nested(code: CodeType) -> list[CodeType]:
    return [value for value in code.co_consts if isinstance(value, CodeType)]


def _replace(changed: dict[tuple[str, int], CodeType], functions: list[FunctionType]) -> None:
    missing = set(changed)
    for found in functions:
        place = found.__code__.co_qualname, found.__code__.co_firstlineno
        if place in changed:
            if len(changed[place].co_freevars) != len(found.__code__.co_freevars):
                raise NotApplied(f"{place} closes over other names")
            found.__code__ = changed[place]
            missing.discard(place)
    if missing:
        raise NotApplied(f"{missing} do not exist")

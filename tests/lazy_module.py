"""A library that is imported by the process that runs its tests, not by all that collect them."""

from importlib import import_module
from typing import Any


class LazyModule:
    """A module that is imported when an attribute of it is first read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)

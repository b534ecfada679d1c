"""A library that is imported by the process that runs its tests, not by all that collect them."""

from importlib import import_module
from typing import Any


class LazyModule:
    """A module that is imported when a test first reads an attribute of it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # During collection, pytest asks every global for `_mock_name`, `__wrapped__` and others.
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return getattr(import_module(self._name), attribute)

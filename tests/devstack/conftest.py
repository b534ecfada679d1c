"""The longest file begins first: when the suite runs in several processes, none waits for it."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != "test_whole_stack.py")

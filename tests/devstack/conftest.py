"""The longest files begin first: when the suite runs in several processes, none waits for them."""

import pytest

LONGEST = ["test_whole_stack.py", "test_demo.py"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)

"""The mistakes of the catalogue can still be made, and their tests are still there."""

import ast

import pytest

from tests.mutations.catalogue import MUTATIONS, ROOT

DOCUMENT = (ROOT / "docs" / "mistakes-of-others.md").read_text()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.says)
def test_a_mistake_has_its_place_its_test_and_its_line_in_the_docs(mutation):
    text = (ROOT / mutation.file).read_text()
    assert text.count(mutation.ours) == 1
    ast.parse(text.replace(mutation.ours, mutation.mistake))
    file, _, name = mutation.test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text()
    assert name in DOCUMENT

"""Each case of docs/behaviours.md has tests, and the document lists exactly those."""

import subprocess
import sys
from pathlib import Path

from tests import behaviours

ROOT = Path(__file__).parents[2]


def test_each_case_has_a_test():
    assert behaviours.cases().keys() == behaviours.marked().keys()


def test_the_document_lists_the_tests_of_each_case():
    assert behaviours.listed() == behaviours.marked(), "run: python -m tests.behaviours"


def test_the_number_of_a_case_selects_its_tests():
    for option in ("-m", "-k"):
        told = subprocess.run(
            [
                sys.executable,
                *("-m", "pytest", "--collect-only", "-q", "-n", "0", option, "S17"),
                "tests/slack_bot/test_mentions.py",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        selected = [line for line in told.splitlines() if "::" in line]
        assert selected
        assert set(selected) <= set(behaviours.marked()["S17"])

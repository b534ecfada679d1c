"""Choosing the files to show a model."""

import pytest

from coding_tasks.reading.file_choice import Budget, relevant_files


class Files(dict):
    """A checkout in memory that counts reads."""

    read_bytes = 0

    def files(self):
        return list(self)

    def read(self, path, limit):
        content = self[path][:limit]
        self.read_bytes += len(content)
        return content


def paths(files, request, budget=None):
    return [excerpt.path for excerpt in relevant_files(files, request, budget or Budget())]


def test_the_readme_is_always_shown():
    files = Files({"README.md": b"# Shop", "other.py": b"x"})
    assert paths(files, "hello") == ["README.md"]


def test_a_named_file_comes_first():
    files = Files({"README.md": b"# Shop", "src/cart.py": b"x", "lib/other.py": b"y"})
    assert paths(files, "what is wrong in src/cart.py?") == ["src/cart.py", "README.md"]
    assert paths(files, "what is wrong in cart.py?") == ["src/cart.py", "README.md"]


def test_files_closer_to_the_request_are_shown_earlier():
    files = Files(
        {
            "a.py": b"def unrelated(): ...",
            "b.py": b"class Discount: voucher = 1",
            "c.py": b"voucher",
            "docs/discount.md": b"-",
        }
    )
    assert paths(files, "How is the discount of a voucher computed?") == [
        "docs/discount.md",
        "b.py",
        "c.py",
    ]


def test_common_words_find_nothing():
    files = Files({"a.py": b"please make this change and add that"})
    assert paths(files, "please make this change") == []


def test_files_that_are_not_text_are_left_out():
    files = Files({"logo.png": b"\x89PNG\0", "README.md": b"ok", "empty.md": b""})
    assert paths(files, "logo.png empty.md") == ["README.md"]


def test_text_in_another_encoding_is_shown_as_far_as_it_can_be_read():
    files = Files({"README": "Grüße".encode("latin-1")})
    assert relevant_files(files, "", Budget())[0].text == "Gr��e"


@pytest.mark.parametrize("count", [1, 50])
def test_no_more_than_the_budget_is_shown(count):
    files = Files({f"cart{number}.py": b"x" * 5_000 for number in range(count)})
    budget = Budget(shown=10_000, shown_of_one_file=3_000)
    excerpts = relevant_files(files, "cart7.py cart", budget)
    assert sum(len(excerpt.text) for excerpt in excerpts) <= 10_000
    assert all(len(excerpt.text) <= 3_000 and not excerpt.whole for excerpt in excerpts)


def test_a_file_that_fits_exactly_is_whole():
    files = Files({"README": b"x" * 100})
    assert relevant_files(files, "", Budget(shown=100))[0].whole


def test_a_huge_repository_is_searched_within_bounds():
    files = Files({f"{number}.py": b"voucher " * 10_000 for number in range(1_000)})
    budget = Budget(searched_files=10, searched_of_one_file=1_000, shown=5_000)
    relevant_files(files, "voucher", budget)
    assert files.read_bytes < 10 * 1_000 + 5_000 + 10

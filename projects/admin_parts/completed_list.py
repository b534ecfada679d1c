"""An admin list that loads further data for all its rows at once, not row by row."""

from collections.abc import Sequence
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest


class CompletedList(ChangeList):
    """Loads the rows of a page, and completes them together. Subclasses say how."""

    def get_results(self, request: HttpRequest) -> None:
        """Load the page's rows, and what belongs to them."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        self.complete(self.result_list)

    def complete(self, rows: Sequence[Any]) -> None:
        """Add to all rows at once what their columns show."""
        raise NotImplementedError

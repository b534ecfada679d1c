"""Search in the admin's lists and pickers. The best matches come first."""

import re
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add, and_, or_
from typing import Any, ClassVar
from uuid import UUID

from django.contrib.admin.utils import lookup_spawns_duplicates
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Case, F, IntegerField, Q, QuerySet, UUIDField, Value, When
from django.db.models.functions import Length
from django.http import HttpRequest

SHORTEST_PREFIX = 8
"""This many characters at the beginning of an id are enough to find it."""
_SHORTEST_ID = 4
_HAS_LETTER = re.compile(r"[A-Za-z]")
_HAS_DIGIT = re.compile(r"\d", re.ASCII)


def looks_like_id(text: str) -> bool:
    """Return whether a text can be an id or token: one word that isn't only a number."""
    if not text.isprintable() or " " in text or text.isdecimal():
        return False
    has_both = _HAS_LETTER.search(text) and _HAS_DIGIT.search(text)
    return len(text) >= _SHORTEST_ID or bool(has_both)


class NamedSearch:
    """A mixin for a `ModelAdmin` with a search.

    Every word that was typed has to be in one of `search_fields`, which are texts that people know.
    The fields in `search_ids` are compared only if the text looks like an id: as a whole, or by its
    beginning. An entry with a lookup, such as `mask__icontains`, is compared with that lookup.

    If the rows are named by `named_by`, those called exactly what was typed come first, then those
    whose names begin with it; shorter names come before longer ones. Lists that people sorted
    themselves keep their order.
    """

    model: Any
    search_fields: ClassVar[Any]
    search_ids: Sequence[str] = ()
    named_by: Sequence[str] = ()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the rows that match, and False, because they contain no duplicates."""
        text = " ".join(search_term.split())
        if not text:
            return queryset, False
        found = self._matching(text)
        fields = (*self.search_fields, *self.search_ids)
        if any(lookup_spawns_duplicates(self.model._meta, field) for field in fields):
            rows = self.model._base_manager.filter(found).values("pk")
            queryset = queryset.filter(pk__in=rows)
        else:
            queryset = queryset.filter(found)
        if self.named_by and not request.GET.get("o"):
            queryset = self._best_first(queryset, text)
        return queryset, False

    def _matching(self, text: str) -> Q:
        ids = list(self._id_lookups(text)) if looks_like_id(text) else []
        if ids and _uuid(text) is not None:
            return reduce(or_, ids)
        words = [word for word in text.split() if any(map(str.isalnum, word))] or [text]
        named = reduce(
            and_,
            (
                reduce(or_, (Q(**{f"{field}__icontains": word}) for field in self.search_fields))
                for word in words
            ),
        )
        return reduce(or_, ids, named)

    def _id_lookups(self, text: str) -> Iterator[Q]:
        for name in self.search_ids:
            field = self._field(name)
            if field is None:
                yield Q(**{name: text})
            elif isinstance(field, UUIDField) and (whole := _uuid(text)) is not None:
                yield Q(**{name: whole})  # uses the index
            elif len(text) >= SHORTEST_PREFIX:
                yield Q(**{f"{name}__istartswith": text})
            else:
                yield Q(**{f"{name}__iexact": text})

    def _field(self, name: str) -> Any:
        """Return the field, or None if the name ends in a lookup."""
        options = self.model._meta
        field: Any = None
        try:
            for part in name.split("__"):
                field = options.get_field(part)
                options = field.related_model._meta if field.is_relation else options
        except FieldDoesNotExist:
            return None
        return field

    def _best_first(self, queryset: QuerySet[Any], text: str) -> QuerySet[Any]:
        def any_name(lookup: str) -> Q:
            return reduce(or_, (Q(**{f"{name}__{lookup}": text}) for name in self.named_by))

        rank = Case(
            When(any_name("iexact"), then=Value(0)),
            When(any_name("istartswith"), then=Value(1)),
            When(any_name("icontains"), then=Value(2)),
            default=Value(3),
            output_field=IntegerField(),
        )
        length = reduce(add, (Length(F(name)) for name in self.named_by))
        return queryset.order_by(rank, length, *queryset.query.order_by)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

"""Parts of the admin's pages that show data of another model.

Django checks who may see a page. This module checks who may see its columns, fields, filters and
links with data of another model: users need that model's permission too.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

Permissions = tuple[str, ...]


class Link(NamedTuple):
    """A link to a page, and the permissions that the page needs."""

    permissions: Permissions
    title: str
    address: str


class PermittedParts:
    """A mixin for a `ModelAdmin` that leaves out the parts that the user may not see.

    `needed` maps columns, fields and filters to their permissions. `links` maps the fields that are
    links to their titles and to functions that return an object's links.
    """

    needed: ClassVar[Mapping[Any, Permissions]] = {}
    links: ClassVar[Mapping[str, tuple[str, Callable[[Any], Iterable[Link]]]]] = {}

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns that the user may see."""
        return self._permitted(request, super().get_list_display(request))  # type: ignore[misc]

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Return the filters that the user may use."""
        return self._permitted(request, super().get_list_filter(request))  # type: ignore[misc]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields that the user may see, with the links made for them."""
        fields = self._permitted(request, super().get_fields(request, obj))  # type: ignore[misc]
        return [self._linked(request, name) for name in fields]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the read-only fields, with the links made for this user."""
        fields = super().get_readonly_fields(request, obj)  # type: ignore[misc]
        shown = [*self._permitted(request, fields), *self.links]
        return [self._linked(request, name) for name in shown]

    def _permitted(self, request: HttpRequest, parts: Iterable[Any]) -> list[Any]:
        return [part for part in parts if request.user.has_perms(self.needed.get(part, ()))]

    def _linked(self, request: HttpRequest, name: Any) -> Any:
        if name not in self.links:
            return name
        made: dict[str, Any] = request.__dict__.setdefault("_permitted_links", {})
        # Django compares fields with read-only fields, so both must get the same function.
        return made.setdefault(name, self._links_for(request, *self.links[name]))

    @staticmethod
    def _links_for(
        request: HttpRequest, title: str, links_of: Callable[[Any], Iterable[Link]]
    ) -> Callable[[Any], SafeString | str]:
        def shown(row: Any) -> SafeString | str:
            if row._state.adding:
                return "–"
            allowed = (link for link in links_of(row) if request.user.has_perms(link.permissions))
            found = ((link.address, link.title) for link in allowed)
            return format_html_join(" · ", '<a href="{}">{}</a>', found) or "–"

        shown.short_description = title  # type: ignore[attr-defined]
        return shown

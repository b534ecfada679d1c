"""The admin site. Its first page is an overview. All records are in groups on another page."""

from functools import wraps
from typing import Any

from django.contrib.admin import AdminSite
from django.core.exceptions import BadRequest
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.decorators import method_decorator

from console.list_csv import list_as_csv
from console.overview.page import overview_page
from console.overview.records import grouped
from console.overview.spending_csv import spending_csv
from projects.oauth.log_in_throttle import throttled

_PARTS_OF_DATES = ("__year", "__month", "__day")


class TollgateAdminSite(AdminSite):
    """Django's admin under Tollgate's name."""

    site_header = "Tollgate"
    site_title = "Tollgate"
    index_title = "All records"
    site_url = None
    index_template = "console/records.html"

    @method_decorator(throttled)
    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Log in, with a limit on failed attempts."""
        return super().login(request, extra_context)

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Return a view that answers 400 to parameters that would make Django's own lists fail."""

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            for name, values in request.GET.lists():
                longest = 4 if name.endswith(_PARTS_OF_DATES) else None
                if any("\0" in value or (longest and len(value) > longest) for value in values):
                    raise BadRequest(f"{name} has a value that cannot be looked up")
            answer: HttpResponse = view(request, *args, **kwargs)
            return answer

        return super().admin_view(guarded, cacheable)

    def get_urls(self) -> list[URLPattern | URLResolver]:
        """Return Django's paths and our own."""
        return [
            path("spending/<slug:table>.csv", self.admin_view(spending_csv), name="spending_csv"),
            path("records/", self.admin_view(self.records), name="records"),
            path(
                "<slug:app_label>/<slug:model_name>/csv/",
                self.admin_view(self.list_csv),
                name="list_csv",
            ),
            *super().get_urls(),
        ]

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Show the overview."""
        request.current_app = self.name
        return overview_page(request)

    def records(self, request: HttpRequest) -> TemplateResponse:
        """Show the lists of all records that the user may see."""
        return super().index(request)

    def list_csv(self, request: HttpRequest, app_label: str, model_name: str) -> HttpResponseBase:
        """Return the list of a model as a CSV file."""
        pages = {page.opts.label_lower: page for page in self._registry.values()}
        page = pages.get(f"{app_label}.{model_name}")
        if page is None:
            raise Http404
        return list_as_csv(page, request)

    def get_app_list(
        self, request: HttpRequest, app_label: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the lists that the user may see, in groups, or those of one application."""
        apps: list[dict[str, Any]] = super().get_app_list(request, app_label)
        return apps if app_label else grouped(apps, reverse("admin:records"))

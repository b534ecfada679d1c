"""The answer to a path that does not exist."""

from django.http import HttpRequest, HttpResponse, HttpResponseNotFound, JsonResponse
from django.views.defaults import page_not_found


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return a 404: JSON below `/api/`, like the API's other errors, and a page elsewhere."""
    if request.path.startswith("/api/"):
        return JsonResponse({"detail": "Not found."}, status=404)
    page: HttpResponseNotFound = page_not_found(request, exception)
    return page

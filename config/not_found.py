"""What a path that nobody serves is answered with."""

from django.http import HttpRequest, HttpResponse, HttpResponseNotFound, JsonResponse
from django.views.defaults import page_not_found


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer programs in JSON, as every other refusal of the API is, and people with a page."""
    if request.path.startswith("/api/"):
        return JsonResponse({"detail": "Not found."}, status=404)
    page: HttpResponseNotFound = page_not_found(request, exception)
    return page

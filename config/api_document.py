"""The OpenAPI document, generated once in a process."""

import threading
from functools import cache
from typing import Any

from django.conf import settings
from django.utils import translation
from drf_spectacular.generators import SchemaGenerator

_generating = threading.Lock()


class SharedSchemaGenerator(SchemaGenerator):
    """Generates the same document for everybody, and only at the first request.

    drf-spectacular loads its extensions at the first use, which fails if two threads do so at once.
    Generating takes about 300 ms, so callers must not be able to repeat it.
    """

    def get_schema(self, request: object = None, public: bool = False) -> dict[str, Any]:
        """Return the document, which is the same for every request."""
        with _generating:
            return _generated()


@cache
def _generated() -> dict[str, Any]:
    with translation.override(settings.LANGUAGE_CODE):
        document: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return document

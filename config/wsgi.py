"""Django as a WSGI application; `config.asgi` serves it."""

import os

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from config.charsets import with_known_charset

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = with_known_charset(get_wsgi_application())
# Import every view now. The first request may be Slack's, which allows only three seconds.
get_resolver().url_patterns  # noqa: B018 - a cached property that imports

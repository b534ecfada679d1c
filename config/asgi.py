"""The web server's application: `granian --interface asginl config.asgi:application`.

Django itself runs under WSGI, where its synchronous views run in parallel.
"""

import resource

from django.conf import settings
from django.core.management import BaseCommand

from config.checks import WEB
from config.request_bodies import Limits
from config.threaded_wsgi import ThreadedWSGI
from config.wsgi import application as django

THREADS = 16
"""Requests mostly wait for a database or Redis; each thread may hold a database connection."""
_OPEN_FILES = 16_384

# By default a shell lets a process open too few files for thousands of idle connections.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if _soft != resource.RLIM_INFINITY and _soft < _OPEN_FILES:
    _most = _OPEN_FILES if _hard == resource.RLIM_INFINITY else min(_OPEN_FILES, _hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_most, _hard))

BaseCommand().check(tags=[WEB], include_deployment_checks=True)
application = ThreadedWSGI(django, THREADS, Limits(seconds=settings.WEB_BODY_TIMEOUT))

"""A limit on attempts to log in, against guessing passwords.

Attempts are counted in Redis by user and address, and by address alone. There is deliberately no
count by user name alone, because anybody could then lock an administrator out.

* A window begins with its first attempt.
* All spellings that Django takes for one user count as one name.
* Attempts count before the password is checked, so many at once gain nothing over many in a row.
* Without Redis there is no limit, because somebody must be able to log in to see what is wrong.
"""

import hashlib
import ipaddress
import logging
from collections.abc import Callable
from functools import wraps

import redis
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError
from django.db import Error as DatabaseFailure
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from prometheus_client import Counter
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from projects.models import User
from projects.redis_connection import redis_connection

WINDOW = 15 * 60
"""Seconds."""
ATTEMPTS = 5
"""Attempts at one user name from one address, per window."""
ATTEMPTS_OF_AN_ADDRESS = 100
"""Attempts at all user names from one address, per window: an office may share an address."""

_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 addresses behind a translator (RFC 6052, 2.1)."""

HELD_BACK = Counter("tollgate_log_ins_held_back", "Log-in attempts refused after too many.")
logger = logging.getLogger(__name__)

View = Callable[..., HttpResponseBase]


def throttled(view: View) -> View:
    """Return a log-in view with a limit on attempts. It takes `username` and `password` by POST.

    Too many attempts get 429 with `Retry-After`, whatever the password is.
    """

    @wraps(view)
    def log_in(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        name, network = user_named(request.POST.get("username", "")), client_network(request)
        seconds = attempt(name, network)
        if seconds:
            HELD_BACK.inc()
            logger.warning("too many attempts to log in from %s", network)
            return _too_many(request, seconds)
        response = view(request, *args, **kwargs)
        if response.status_code == 302:  # logged in: only failed attempts count
            forget(name, network)
        return response

    return log_in


def user_named(text: str) -> str:
    """Return the user name that was typed into a log-in form, the same for all its spellings.

    The form strips and normalizes what was typed, and databases compare letters differently. If the
    database finds a user, the name is the stored one.
    """
    try:
        name = str(AuthenticationForm().fields["username"].clean(text))
        found = User.objects.filter(username=name).values_list("username", flat=True).first()
    except ValidationError:  # the form is refused before a password is checked
        return ""
    except DatabaseFailure:  # nobody can log in then
        found = None
    return (found or name).casefold()


def attempt(name: str, network: str) -> int:
    """Count an attempt; return the seconds to wait if it is one too many, otherwise 0."""
    limits = {
        _key("name", name, network): ATTEMPTS,
        _key("address", network): ATTEMPTS_OF_AN_ADDRESS,
    }
    try:
        with redis_connection().pipeline(transaction=True) as pipe:
            for key in limits:
                pipe.set(key, 0, ex=WINDOW, nx=True)
                pipe.incr(key)
                pipe.ttl(key)
            answers = pipe.execute()
    except redis.RedisError as error:
        logger.warning("attempts to log in are not counted: %s", type(error).__name__)
        return 0
    counts, left = answers[1::3], answers[2::3]
    waits = [
        max(seconds, 1)
        for count, seconds, limit in zip(counts, left, limits.values(), strict=True)
        if count > limit
    ]
    return max(waits, default=0)


def forget(name: str, network: str) -> None:
    """Forget the attempts at a user name from an address, because the last one succeeded."""
    try:
        redis_connection().delete(_key("name", name, network))
    except redis.RedisError:
        return


def client_network(request: HttpRequest) -> str:
    """Return the client's address, or for IPv6 its /64 network, because one client has all of it.

    An IPv4 address that is written or embedded as an IPv6 address counts as the IPv4 address.

    `X-Forwarded-For` is trusted only as far as our own proxies wrote it (`NUM_PROXIES`). The caller
    may have written the part before that.
    """
    peer = str(request.META.get("REMOTE_ADDR", ""))
    seen = BaseThrottle().get_ident(Request(request)) or ""
    return _network(seen) or _network(peer) or peer


def _network(text: str) -> str:
    """Return the network of an address as proxies write it, or "" if it isn't an address."""
    host = text
    if text.startswith("["):
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # IPv4 with a port
        host = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    carried = address.ipv4_mapped or address.sixtofour
    if address in _TRANSLATED:
        carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if carried is not None:
        return str(carried)
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))


def _key(*parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    return f"tollgate:log-in:{digest}"


def _too_many(request: HttpRequest, seconds: int) -> HttpResponse:
    return TemplateResponse(
        request,
        "projects/too_many_attempts.html",
        {"minutes": -(-seconds // 60)},
        status=429,
        headers={"Retry-After": str(seconds)},
    )

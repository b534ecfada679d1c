"""A brake on guessing passwords: how often somebody may try to log in.

Attempts are counted in Redis, in windows that begin with the first of them: by user name and
address, and by address alone. There is deliberately no count by user name alone: with one, anybody
could lock an administrator out. Attempts count before the password is looked at, so that many at
once are not more than many in a row. Without Redis nobody is held back: passwords still decide, and
somebody has to be able to log in and see what is wrong.
"""

import hashlib
import ipaddress
import logging
from collections.abc import Callable
from functools import wraps

import redis
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from prometheus_client import Counter
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from projects.redis_connection import redis_connection

WINDOW = 15 * 60
"""Seconds."""
ATTEMPTS = 5
"""Attempts at one user name from one address, per window."""
ATTEMPTS_OF_AN_ADDRESS = 100
"""Attempts at all user names from one address, per window: an office may share one."""

HELD_BACK = Counter("tollgate_log_ins_held_back", "Attempts to log in that came too often.")
logger = logging.getLogger(__name__)

View = Callable[..., HttpResponseBase]


def throttled(view: View) -> View:
    """Wrap a view that logs in whom the fields `username` and `password` of a POST name.

    Too many attempts are answered 429 with `Retry-After`, whatever the password is.
    """

    @wraps(view)
    def log_in(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        name, network = request.POST.get("username", ""), client_network(request)
        seconds = attempt(name, network)
        if seconds:
            HELD_BACK.inc()
            logger.warning("too many attempts to log in from %s", network)
            return _too_many(request, seconds)
        response = view(request, *args, **kwargs)
        if response.status_code == 302:  # logged in: only what went wrong is held against anybody
            forget(name, network)
        return response

    return log_in


def attempt(name: str, network: str) -> int:
    """Count an attempt; return the seconds to wait when it is one too many, else 0."""
    limits = {
        _key("name", name.casefold(), network): ATTEMPTS,
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
    """Forget the attempts at a user name from an address: the last one succeeded."""
    try:
        redis_connection().delete(_key("name", name.casefold(), network))
    except redis.RedisError:
        return


def client_network(request: HttpRequest) -> str:
    """Return the client's address, or its network where one client has many addresses (IPv6: /64).

    `X-Forwarded-For` counts only as far as our own proxies wrote it (`NUM_PROXIES`): what a caller
    puts in front of that is the caller's claim.
    """
    peer = str(request.META.get("REMOTE_ADDR", ""))
    seen = BaseThrottle().get_ident(Request(request)) or ""
    return _network(seen) or _network(peer) or peer


def _network(text: str) -> str:
    """Return the network of an address as proxies write it; empty when it is none."""
    host = text
    if text.startswith("["):
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # with a port, and a new port is not a new client
        host = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
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

"""Which clone URLs are allowed: a few plain forms, and none that makes git run a program.

git accepts far more than URLs: `ext::` runs a command, a leading dash is an option, and a password
in an address ends up in logs. See "git help remote-helpers" and CVE-2017-1000117.
"""

import re
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError

_TRANSPORT_HELPER = re.compile(r"^[A-Za-z0-9+.-]+::")
_SCP_LIKE = re.compile(r"^(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.-]+):(?P<path>[^/:].*)$")
_NOT_PRINTABLE = re.compile(r"[\x00-\x20\x7f\\]")


class UnsafeCloneURL(ValueError):
    """Git must not be given this address. The message says why, without the address."""


def protocol_of(url: str) -> str:
    """Return git's name for the address's protocol (`https`, `ssh`, `file` …).

    Raises `UnsafeCloneURL` unless the protocol is in `settings.GIT_ALLOWED_PROTOCOLS` and the
    address has a plain form without a credential.
    """
    if not url or _NOT_PRINTABLE.search(url):
        raise UnsafeCloneURL("it contains white space, a backslash or a control character")
    if url.startswith("-"):
        raise UnsafeCloneURL("it starts with a dash")
    if _TRANSPORT_HELPER.match(url):
        raise UnsafeCloneURL("it names a remote helper")
    protocol = _protocol_of_plain(url)
    if protocol not in settings.GIT_ALLOWED_PROTOCOLS:
        allowed = ", ".join(settings.GIT_ALLOWED_PROTOCOLS)
        raise UnsafeCloneURL(f"the protocol {protocol} is not one of those allowed: {allowed}")
    return protocol


def _protocol_of_plain(url: str) -> str:
    if "://" not in url:
        if url.startswith("/"):
            return "file"
        scp_like = _SCP_LIKE.match(url)
        if scp_like is None:
            raise UnsafeCloneURL("it is neither a URL nor host:path nor an absolute path")
        if scp_like["host"].startswith("-") or (scp_like["user"] or "").startswith("-"):
            raise UnsafeCloneURL("its host starts with a dash")
        return "ssh"
    try:
        parts = urlsplit(url)
        host, user, password = parts.hostname or "", parts.username, parts.password
    except ValueError as error:
        raise UnsafeCloneURL("it is not a URL") from error
    if password is not None or (user is not None and parts.scheme != "ssh"):
        raise UnsafeCloneURL("it contains a credential")
    if parts.query or parts.fragment:
        raise UnsafeCloneURL("it has a query or a fragment")
    if host.startswith("-") or (user or "").startswith("-"):
        raise UnsafeCloneURL("its host starts with a dash")
    if not host and parts.scheme != "file":
        raise UnsafeCloneURL("it names no host")
    return parts.scheme.lower()


def validate_clone_url(url: str) -> None:
    """Raise `ValidationError` unless git may be given the address."""
    try:
        protocol_of(url)
    except UnsafeCloneURL as error:
        raise ValidationError(f"This address cannot be cloned: {error}.") from error

"""The format of credentials: random text after a prefix that names the kind."""

import hashlib
import secrets
from typing import Any

PROJECT_API_TOKEN = "phc_"  # noqa: S105
PERSONAL_API_KEY = "phx_"
OAUTH_ACCESS_TOKEN = "pha_"  # noqa: S105
OAUTH_REFRESH_TOKEN = "phr_"  # noqa: S105


def _generate(prefix: str) -> str:
    return prefix + secrets.token_urlsafe(32)


def generate_project_api_token() -> str:
    """Return a new project API token. It is a public identifier and gives no access."""
    return _generate(PROJECT_API_TOKEN)


def generate_personal_api_key() -> str:
    """Return a new personal API key. Show it once and store only its `sha256`."""
    return _generate(PERSONAL_API_KEY)


def generate_access_token(_request: Any = None, _refresh_token: bool = False) -> str:
    """Return a new OAuth access token (django-oauth-toolkit's generator signature)."""
    return _generate(OAUTH_ACCESS_TOKEN)


def generate_refresh_token(_request: Any = None, _refresh_token: bool = False) -> str:
    """Return a new OAuth refresh token (django-oauth-toolkit's generator signature)."""
    return _generate(OAUTH_REFRESH_TOKEN)


def sha256(credential: str) -> str:
    """Return the digest under which a credential is stored and looked up, in hexadecimal.

    A plain hash is enough, because 256 random bits can't be guessed like a password.
    """
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).hexdigest()


def mask(credential: str) -> str:
    """Return the part of a credential that may be shown later: its prefix and last characters."""
    return f"{credential[:4]}…{credential[-4:]}"

"""How credentials are made and recognised: random text behind a prefix that says what it is."""

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
    """Return a new project API token. It identifies a project publicly and opens nothing."""
    return _generate(PROJECT_API_TOKEN)


def generate_personal_api_key() -> str:
    """Return a new personal API key, to be shown once and stored as its `sha256`."""
    return _generate(PERSONAL_API_KEY)


def generate_access_token(_request: Any = None, _refresh_token: bool = False) -> str:
    """Return a new OAuth access token (django-oauth-toolkit's generator signature)."""
    return _generate(OAUTH_ACCESS_TOKEN)


def generate_refresh_token(_request: Any = None, _refresh_token: bool = False) -> str:
    """Return a new OAuth refresh token (django-oauth-toolkit's generator signature)."""
    return _generate(OAUTH_REFRESH_TOKEN)


def sha256(credential: str) -> str:
    """Return the digest under which a credential is stored and looked up, in hexadecimal.

    A plain hash is enough for 256 random bits; there is no password to guess.
    """
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).hexdigest()


def mask(credential: str) -> str:
    """Return what may be shown of a credential later: its prefix and last four characters."""
    return f"{credential[:4]}…{credential[-4:]}"

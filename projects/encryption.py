"""Encrypting secrets that must be read back (Slack bot tokens), with Fernet.

The encryption key is derived from `SECRET_KEY`. Keys in `SECRET_KEY_FALLBACKS` still decrypt. To
rotate the secret, add the old one there, save the rows again, and remove it.
"""

import base64
import hashlib
from typing import Any

from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings
from django.db import models


def _fernet() -> MultiFernet:
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return MultiFernet(
        Fernet(
            base64.urlsafe_b64encode(
                hashlib.sha256(b"tollgate.encryption:" + key.encode()).digest()
            )
        )
        for key in secrets
    )


class EncryptedTextField(models.TextField[str, str]):
    """Text that is encrypted in the database and plain in Python. It cannot be filtered on."""

    def get_prep_value(self, value: Any) -> Any:
        """Return the encrypted text, which is different each time."""
        if value is None:
            return None
        return _fernet().encrypt(str(value).encode()).decode()

    def from_db_value(self, value: Any, _expression: Any, _connection: Any) -> Any:
        """Return the plain text. Raises `cryptography.fernet.InvalidToken` if no known key fits."""
        if value is None:
            return None
        return _fernet().decrypt(value.encode()).decode()

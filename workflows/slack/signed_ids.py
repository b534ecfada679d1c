"""Ids in the values of buttons and modals. They are signed: they come back through a browser."""

from uuid import UUID

from django.core import signing


class SignedIds:
    """Signs the ids of one kind of row. The salt keeps them from being read as another kind."""

    def __init__(self, salt: str) -> None:
        self._signer = signing.Signer(salt=salt)

    def sign(self, row_id: UUID) -> str:
        """Return the value to show."""
        return self._signer.sign(row_id.hex)

    def read(self, value: str) -> UUID | None:
        """Return the id in a value, or None if we did not sign it."""
        try:
            return UUID(self._signer.unsign(value))
        except (signing.BadSignature, ValueError):
            return None

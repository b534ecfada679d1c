"""Models whose rows can't be changed or deleted, neither through the ORM nor in the database.

The database's triggers are in the migration `0002_triggers`.
"""

from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from django.db import models


class AppendOnlyError(TypeError):
    """Raised on every attempt to change or delete an append-only row."""


M = TypeVar("M", bound=models.Model)


class AppendOnlyQuerySet(models.QuerySet[M]):
    """Allows reads and inserts. Everything else raises `AppendOnlyError`."""

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise AppendOnlyError(
            f"{self.model._meta.verbose_name_plural} are never changed or deleted"
        )

    update = delete = bulk_update = update_or_create = _refuse
    aupdate = adelete = abulk_update = aupdate_or_create = _refuse

    def bulk_create(self, objs: Iterable[M], *args: Any, **kwargs: Any) -> list[M]:
        """Insert rows. Refuses `update_conflicts`, which would change existing rows."""
        if kwargs.get("update_conflicts"):
            self._refuse()
        return super().bulk_create(objs, *args, **kwargs)


class AppendOnlyModel(models.Model):
    """A model whose rows are inserted and read, but never changed or deleted."""

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert the row. Raises `AppendOnlyError` if it is already in the database."""
        if not self._state.adding:
            raise AppendOnlyError(f"{self._meta.verbose_name} {self.pk} is never changed")
        super().save(*args, **(kwargs | {"force_insert": True}))

    def delete(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raise `AppendOnlyError`."""
        raise AppendOnlyError(f"{self._meta.verbose_name} {self.pk} is never deleted")

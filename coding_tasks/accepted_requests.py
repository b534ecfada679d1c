"""Requests with an idempotency key: a repeated request finds the run that it made before."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.db import IntegrityError, transaction

from coding_tasks.models import AcceptedRequest, TaskRun


class KeyReused(Exception):
    """The key was used for another request before."""


@dataclass(frozen=True)
class KeyedRequest:
    """A request with an idempotency key, which is unique within `scope`, or with an empty key."""

    scope: str
    key: str
    body: Mapping[str, object]

    def earlier_run(self) -> TaskRun | None:
        """Return the run that this request made before, or None. Raises `KeyReused`."""
        if not self.key:
            return None
        found = AcceptedRequest.objects.filter(key_digest=self._key_digest)
        earlier = found.select_related("run__task").first()
        if earlier is None:
            return None
        if earlier.body_digest != self._body_digest:
            raise KeyReused
        return earlier.run

    def make_once(self, make: Callable[[], TaskRun]) -> tuple[TaskRun, bool]:
        """Return the run that `make` makes, and True; or the run made before, and False.

        Raises `KeyReused`, and what `make` raises.
        """
        try:
            with transaction.atomic():
                run = make()
                if self.key:
                    AcceptedRequest.objects.create(
                        key_digest=self._key_digest, body_digest=self._body_digest, run=run
                    )
        except IntegrityError:
            earlier = self.earlier_run()
            if earlier is None:
                raise
            return earlier, False
        return run, True

    @property
    def _key_digest(self) -> str:
        return _digest([self.scope, self.key])

    @property
    def _body_digest(self) -> str:
        return _digest(self.body)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

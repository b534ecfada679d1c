"""Faults on request: the next calls of a method fail, hang, or lose their answer."""

import threading
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """How one call of a method goes wrong.

    The call first waits for `hang` seconds. With `error` it then gets that error (with `status` and
    `retry_after`) and has no effect. With `drop` it has its effect, but the connection closes
    without an answer, so the caller cannot know that it did.
    """

    error: str = ""
    status: int = 200
    retry_after: int | None = None
    hang: float = 0.0
    drop: bool = False


class Faults:
    """The faults that will happen, by method, in the order in which they were requested."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_method: dict[str, deque[Fault]] = {}

    def add(self, method: str, fault: Fault, times: int = 1) -> None:
        """Apply the fault to the next `times` calls of the method (`*`: of any method)."""
        with self._lock:
            self._by_method.setdefault(method, deque()).extend([fault] * times)

    def take(self, method: str) -> Fault | None:
        """Return the fault for this call, if there is one, and use it up."""
        with self._lock:
            for name in (method, "*"):
                if queue := self._by_method.get(name):
                    return queue.popleft()
        return None

    def __bool__(self) -> bool:
        """Return whether any fault is left."""
        with self._lock:
            return any(self._by_method.values())

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._by_method.clear()

"""What goes wrong on request: the next calls of a method fail, hang, or lose their answer."""

import threading
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """How one call of a method goes wrong.

    `hang` seconds pass first. Then `error` (with the HTTP status and `Retry-After` given) is
    answered instead of doing anything; or, with `drop`, the call is done and the connection closed
    without an answer, so that the caller cannot know.
    """

    error: str = ""
    status: int = 200
    retry_after: int | None = None
    hang: float = 0.0
    drop: bool = False


class Faults:
    """The faults still to happen, by method, in the order they were asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_method: dict[str, deque[Fault]] = {}

    def add(self, method: str, fault: Fault, times: int = 1) -> None:
        """Let the fault happen to the next `times` calls of the method (`*`: of any method)."""
        with self._lock:
            self._by_method.setdefault(method, deque()).extend([fault] * times)

    def take(self, method: str) -> Fault | None:
        """Return the fault that happens to this call, if any."""
        with self._lock:
            for name in (method, "*"):
                if queue := self._by_method.get(name):
                    return queue.popleft()
        return None

    def __bool__(self) -> bool:
        """Return whether any fault is still to happen."""
        with self._lock:
            return any(self._by_method.values())

    def clear(self) -> None:
        """Let everything go well from now on."""
        with self._lock:
            self._by_method.clear()

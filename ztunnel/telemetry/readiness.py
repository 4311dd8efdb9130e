"""Whether the node is ready, and if not, what it waits for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

TOO_MANY_ERRORS = 5
ERROR_WINDOW_SECONDS = 10.0
_INTERNAL_ERRORS = "internal errors"


class Readiness:
    """Named tasks that are pending or done, details to show, and the recent internal errors.

    A node is ready when no task is pending and fewer than five internal errors came in the last ten seconds.
    Details (a fault in the configuration, of which the last good state stays in force) are shown and do not
    count.
    """

    def __init__(self, pending: Iterable[str] = ()) -> None:
        """`pending` are the tasks that have to be done before the node is ready for the first time."""
        self._pending = dict.fromkeys(pending)
        self._details: dict[str, str] = {}
        self._errors: deque[float] = deque(maxlen=TOO_MANY_ERRORS)
        self.internal_errors = 0

    def pend(self, task: str) -> None:
        """This has to be done (again) before the node is ready."""
        self._pending[task] = None

    def done(self, task: str) -> None:
        """This is done; nothing happens if it was not pending."""
        self._pending.pop(task, None)

    def detail(self, about: str, text: str) -> None:
        """Show one more line; a second text about the same replaces the first, an empty one removes it."""
        if text:
            self._details[about] = text
        else:
            self._details.pop(about, None)

    def internal_error(self, now: float) -> None:
        """Something happened that nobody expected, at `now` (monotonic seconds)."""
        self.internal_errors += 1
        self._errors.append(now)

    def pending(self, now: float) -> list[str]:
        """What the node waits for; empty if it is ready."""
        pending = list(self._pending)
        if len(self._errors) == TOO_MANY_ERRORS and now - self._errors[0] < ERROR_WINDOW_SECONDS:
            pending.append(_INTERNAL_ERRORS)
        return pending

    def render(self, now: float) -> tuple[bool, str]:
        """Whether the node is ready, and that as text: Istio's line first, then one line for each detail."""
        pending = self.pending(now)
        first = f"not ready, pending: {', '.join(pending)}" if pending else "ready"
        details = [f"{about}: {_on_one_line(text)}" for about, text in self._details.items()]
        return not pending, "\n".join([first, *details, ""])


def _on_one_line(text: str) -> str:
    return " | ".join(text.split("\n"))

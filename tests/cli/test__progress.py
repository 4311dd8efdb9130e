"""What is waited for is said on a terminal, after a moment, and gone at the end."""

from __future__ import annotations

import io
import threading

from ztunnel.cli._progress import progress

CLEAR = "\r\033[K"


class Terminal(io.StringIO):
    """A terminal, which tells of each write."""

    def __init__(self, is_one: bool = True) -> None:
        super().__init__()
        self._is_one = is_one
        self.written = threading.Event()

    def isatty(self) -> bool:
        return self._is_one

    def write(self, text: str) -> int:
        count = super().write(text)
        self.written.set()
        return count


def test_what_takes_its_time_is_said_with_what_it_is_at_and_gone_at_the_end() -> None:
    out = Terminal()
    with progress("asking two nodes", out, quiet_seconds=0.01) as shown:
        assert out.written.wait(4)
        shown.tell("asking the second")
    assert out.getvalue() == f"{CLEAR}asking two nodes{CLEAR}asking the second{CLEAR}"


def test_what_is_quick_says_nothing() -> None:
    out = Terminal()
    with progress("asking", out, quiet_seconds=60) as shown:
        shown.tell("asking the second")
    assert out.getvalue() == ""


def test_who_is_no_terminal_is_told_nothing() -> None:
    out = Terminal(False)
    with progress("asking", out, quiet_seconds=0) as shown:
        shown.tell("asking the second")
    assert out.getvalue() == ""


def test_an_error_leaves_no_line_behind() -> None:
    out = Terminal()
    try:
        with progress("asking", out, quiet_seconds=0.01):
            assert out.written.wait(4)
            raise ValueError
    except ValueError:
        pass
    assert out.getvalue() == f"{CLEAR}asking{CLEAR}"


def test_a_line_that_would_come_after_the_end_does_not() -> None:
    out = Terminal()
    with progress("asking", out, quiet_seconds=0) as shown:
        pass
    shown._show()
    assert out.getvalue().removeprefix(f"{CLEAR}asking") in ("", CLEAR)

"""Lines of failures that come too often."""

from __future__ import annotations

from functools import partial

from ztunnel.telemetry.gathering import LINES_PER_SECOND, Gathering


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, int]] = []
        self.gathering = Gathering()

    def fail(self, cause: str, text: str, now: float) -> None:
        self.gathering.write(cause, partial(self._line, text), now)

    def _line(self, text: str, count: int) -> None:
        self.lines.append((text, count))


def test_the_first_few_of_each_second_are_written_and_the_rest_as_one() -> None:
    log = Log()
    for number in range(1000):
        log.fail("denied", f"line {number}", 5.0 + number / 2000)
    assert log.lines == [(f"line {number}", 1) for number in range(LINES_PER_SECOND)]
    log.gathering.flush(6.1)
    assert log.lines[LINES_PER_SECOND:] == [("line 999", 1000 - LINES_PER_SECOND)]


def test_the_next_failure_of_any_cause_brings_what_was_held() -> None:
    log = Log()
    for _ in range(LINES_PER_SECOND + 3):
        log.fail("denied", "x", 5.0)
    log.fail("other", "y", 6.5)
    assert log.lines[-2:] == [("x", 3), ("y", 1)]


def test_another_cause_is_written_all_the_same() -> None:
    log = Log()
    for _ in range(100):
        log.fail("denied", "x", 5.0)
    log.fail("other", "y", 5.0)
    assert log.lines[-1] == ("y", 1)


def test_a_second_that_is_not_over_holds_what_it_has() -> None:
    log = Log()
    for _ in range(LINES_PER_SECOND + 1):
        log.fail("denied", "x", 5.0)
    log.gathering.flush(5.5)
    assert len(log.lines) == LINES_PER_SECOND
    log.gathering.flush(6.0)
    assert len(log.lines) == LINES_PER_SECOND + 1
    log.gathering.flush(7.0)
    assert len(log.lines) == LINES_PER_SECOND + 1


def test_causes_without_end_are_taken_for_one_and_nothing_is_lost() -> None:
    log = Log()
    for number in range(5000):
        log.fail(f"cause {number}", "x", 5.0)
    log.gathering.flush(6.0)
    assert sum(count for _, count in log.lines) == 5000
    assert len(log.lines) < 1100

"""Checks as text and values, and what they amount to."""

from __future__ import annotations

from ztunnel.analyze.checks import Check, State, as_text, as_values, verdict

GOOD = Check("kernel", "version", State.OK, "6.1", "never shown")
POOR = Check("limits", "descriptors", State.WARN, "1024", "raise it")
BAD = Check("limits", "port 1", State.FAIL, "taken", "stop who has it")


def test_they_are_shown_by_category_with_what_to_do() -> None:
    assert as_text([GOOD, POOR, BAD]).splitlines() == [
        "kernel",
        "  [ok]   version      6.1",
        "limits",
        "  [warn] descriptors  1024",
        "                      -> raise it",
        "  [fail] port 1       taken",
        "                      -> stop who has it",
        "",
        "1 ok, 1 warnings, 1 failures",
    ]


def test_the_worst_counts() -> None:
    assert [verdict(some) for some in ([], [GOOD], [GOOD, POOR], [BAD, GOOD])] == [
        State.OK, State.OK, State.WARN, State.FAIL
    ]  # fmt: skip


def test_values_are_plain() -> None:
    assert as_values([POOR]) == [
        {"category": "limits", "name": "descriptors", "state": "warn", "found": "1024", "fix": "raise it"}
    ]

"""Counters of a flow."""

from __future__ import annotations

from ztunnel.flow.flow import Counts


def test_a_flow_begins_without_bytes() -> None:
    counts = Counts()
    assert (counts.up, counts.down) == (0, 0)


def test_counts_show_both_directions() -> None:
    assert repr(Counts(up=3, down=4)) == "Counts(up=3, down=4)"


def test_what_has_moved_is_both_directions_together() -> None:
    assert Counts(up=3, down=4).moved() == 7

"""Texts that stand in a line as they are."""

from __future__ import annotations

from ztunnel.telemetry.bare import Bare


def test_it_is_a_text_like_any_other() -> None:
    assert Bare("10.0.0.1:80") == "10.0.0.1:80"
    assert isinstance(Bare(7), str)

"""The ground on which the contestants meet."""

from __future__ import annotations

import os

import pytest

from bench.prepare import variables


def test_variables_are_set_for_a_while_and_then_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ONE", "before")
    monkeypatch.delenv("BENCH_OTHER", raising=False)

    def fail() -> None:
        with variables({"BENCH_ONE": "1", "BENCH_OTHER": "2"}):
            assert (os.environ["BENCH_ONE"], os.environ["BENCH_OTHER"]) == ("1", "2")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.environ["BENCH_ONE"] == "before"
    assert "BENCH_OTHER" not in os.environ

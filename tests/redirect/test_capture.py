from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.redirect import capture
from ztunnel.redirect.load import read_sources

OURS = f"{capture.FIRST}-65535"


def test_the_hooks_know_the_same_ports() -> None:
    text = read_sources()["lib/config.h"]
    found = dict(re.findall(r"#define (CAPTURE_\w+) (\d+)", text))
    assert (int(found["CAPTURE_FIRST"]), int(found["CAPTURE_PORTS"])) == (capture.FIRST, capture.PORTS)


def test_our_listeners_are_none_of_them() -> None:
    ports = range(capture.FIRST, capture.FIRST + capture.PORTS)
    assert not set(ports) & set(capture.LISTENER_PORTS)
    assert max(capture.LISTENER_PORTS) == 65535


@pytest.mark.parametrize(
    ("before", "during", "after"),
    [
        ("", OURS, "\n"),
        ("\n", OURS, "\n"),
        ("8080", f"8080,{OURS}", "8080"),
        ("8080,9000-9009\n", f"8080,9000-9009,{OURS}", "8080,9000-9009"),
        ("61000-61439", "61000-65535", "61000-61439"),
        ("61000-62000", "61000-65535", "61000-61439"),
        ("1-65535", "1-65535", "1-61439"),
    ],
)
def test_ours_are_reserved_besides_the_pods(before: str, during: str, after: str) -> None:
    assert capture.reserve(before) == during
    assert capture.reserve(during) == during
    assert capture.release(during) == after


@given(st.sets(st.integers(1, 61439), max_size=50))
def test_what_was_reserved_before_is_reserved_afterwards(ports: set[int]) -> None:
    before = ",".join(map(str, sorted(ports)))
    assert capture.release(capture.reserve(before)) == capture.release(before)

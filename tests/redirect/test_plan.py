from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.redirect.plan import HOOKS, Pins, RedirectSettings, Target, pin_name, spread


@pytest.mark.parametrize(
    ("choices", "table"),
    [
        ([], ""),
        ([("a", 0)], ""),
        ([("a", 7)], "a"),
        ([("a", 1), ("b", 1)], "ab"),
        ([("a", 20), ("b", 10), ("c", 0)], "aab"),
        ([("a", 3), ("b", 2)], "aaabb"),
    ],
)
def test_a_table_has_the_shares_of_the_weights(choices, table) -> None:
    assert "".join(spread(choices)) == table


@given(
    st.lists(st.integers(min_value=0, max_value=10_000), max_size=40), st.integers(min_value=1, max_value=64)
)
def test_a_table_fits_and_keeps_every_choice_that_has_room(weights, limit) -> None:
    table = Counter(spread(list(enumerate(weights)), limit))
    positive = [number for number, weight in enumerate(weights) if weight]
    assert table.total() <= limit
    assert set(table) == set(positive[:limit])


def test_large_weights_keep_their_shares_nearly() -> None:
    table = Counter(spread([("a", 7919), ("b", 2081)]))
    assert table.total() <= 256
    assert abs(table["a"] / table.total() - 0.7919) < 0.01


def test_what_records_is_attached_before_what_redirects() -> None:
    names = [hook.name for hook in HOOKS if hook.target is Target.CGROUP]
    assert names.index("sockops") < names.index("connect4")


def test_settings_reach_the_compiler() -> None:
    flags = RedirectSettings(Path("/p"), lease_seconds=1.5, max_verdicts=7).compiler_flags()
    assert "-DLEASE_NS=1500000000ULL" in flags
    assert "-DMAX_VERDICTS=7" in flags


def test_names_become_names_of_pins_without_dots() -> None:
    names = ["a.b", "a_b", "a_-b", "a-b", "ip-10-0-0-1.ec2.internal"]
    pins = [pin_name(name) for name in names]
    assert len(set(pins)) == len(names)
    assert not any("." in pin for pin in pins)


def test_pins_lie_below_the_nodes_directory() -> None:
    pins = Pins(Path("/sys/fs/bpf/ztunnel/n1"))
    assert pins.pod(4711) == pins.root / "pods/4711"
    assert pins.under_construction().root.parent == pins.root.parent
    assert {pins.maps, pins.programs, pins.links, pins.version} == {
        pins.root / name for name in ("maps", "programs", "links", "version")
    }

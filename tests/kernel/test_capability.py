from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ztunnel.kernel import capability
from ztunnel.kernel.capability import LOADER, PROXY, Capability, effective, missing

REQUIRE = """
import sys
from ztunnel.kernel import capability
capability.require(getattr(capability, sys.argv[1]), "the proxy")
"""


@pytest.mark.parametrize(
    ("status", "held"),
    [
        ("Name:\tx\nCapEff:\t0000000000000000\n", set()),
        ("CapEff:\t0000000000003400\n", {"NET_BIND_SERVICE", "NET_ADMIN", "NET_RAW"}),
        ("CapEff:\t000000c000001000\n", {"NET_ADMIN", "PERFMON", "BPF"}),
        # All of the old administrator's rights; kernels before 5.8 knew no parts of them.
        ("CapEff:\t0000000000200000\n", {"SYS_ADMIN", "PERFMON", "BPF"}),
        ("CapEff:\t000001ffffffffff\n", {each.name for each in Capability}),
        ("Name:\tx\n", set()),
    ],
)
def test_what_is_held_is_read_from_the_kernel(tmp_path: Path, status: str, held: set[str]):
    (tmp_path / "status").write_text(status)
    assert {each.name for each in effective(tmp_path / "status")} == held


def test_what_is_missing_is_in_order():
    held = frozenset({Capability.NET_ADMIN})
    assert missing(LOADER, held) == [Capability.BPF, Capability.PERFMON]
    assert missing(PROXY, frozenset(Capability)) == []


def require(which: str, names: list[str]) -> subprocess.CompletedProcess[str]:
    bounds = ",".join(["-all", *(f"+{name.lower()}" for name in names)])
    words = ["setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", sys.executable, "-c", REQUIRE, which]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(words, capture_output=True, text=True, env=env)


@pytest.mark.root
@pytest.mark.timeout(60)
@pytest.mark.parametrize("which", ["LOADER", "PROXY"])
def test_exactly_those_are_needed_and_each_is_named_where_it_is_missing(which: str):
    wanted = getattr(capability, which)
    names = [each.name for each in wanted]
    assert require(which, names).returncode == 0
    for each in wanted:
        done = require(which, [name for name in names if name != each.name])
        assert (
            f"the proxy lacks the capabilities {each.name}: with {each.name} it {wanted[each]}" in done.stderr
        )

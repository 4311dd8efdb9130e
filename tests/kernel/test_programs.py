"""What the verifier has to walk through, program by program: more than a fifth above the record is to be
explained."""

from __future__ import annotations

import pytest

from tests.kernel.lab import Kernel
from ztunnel.kernel import bpf

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

# Linux 6.18, bcc 0.26 (clang 14).
RECORDED = {
    "egress": 320,
    "connect4": 6079,
    "connect6": 6248,
    "forward": 4068,
    "getpeername4": 19,
    "getpeername6": 25,
    "sk_lookup": 880,
    "sock_release": 87,
    "sockops": 1968,
}


def test_no_program_outgrows_its_record(kernel: Kernel) -> None:
    found = {}
    for place in (kernel.settings.pins / "programs").iterdir():
        program = bpf.open_pinned(place)
        found[place.name] = bpf.verified_instructions(program)
        bpf.close(program)
    assert set(found) == set(RECORDED)
    assert not {name: steps for name, steps in found.items() if steps > RECORDED[name] * 1.2}


def test_names_of_maps_fit_into_the_kernel(kernel: Kernel) -> None:
    names = [place.name for place in (kernel.settings.pins / "maps").iterdir()]
    assert [name for name in names if len(name) > 15] == []

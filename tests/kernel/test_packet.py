"""The offsets that `bpf/forward.c` is compiled with. That they are right, tests/redirect/test_forward.py
shows."""

from __future__ import annotations

import re

from ztunnel.kernel.packet import packet_offsets
from ztunnel.redirect.load import read_sources


def test_each_has_a_default_in_the_sources() -> None:
    names = set(re.findall(r"#define ((?!SK_|IS_)\w+_AT) 0", read_sources()["lib/config.h"]))
    found = packet_offsets()
    assert names == set(found)
    assert found["STATE_FAMILY_AT"] == 1


def test_a_kernel_that_does_not_tell_gives_none(tmp_path) -> None:
    assert packet_offsets(tmp_path / "none") == {}
    (tmp_path / "garbage").write_bytes(b"\x00" * 64)
    assert packet_offsets(tmp_path / "garbage") == {}

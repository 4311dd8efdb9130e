"""The laboratory of tests/kernel, and the nodes that a test makes there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kernel.conftest import kernel, lab
from tests.kernel.lab import Lab
from tests.pods.parts import FWMARK
from ztunnel.kernel.way_back import remove_way_back

__all__ = ["kernel", "lab"]


@pytest.fixture
def nodes(lab: Lab) -> Iterator[ExitStack]:
    """What closes a test's nodes. A proxy that ends leaves its pods captured; the next test's are to be as
    new."""
    with ExitStack() as stack:
        yield stack
    for netns in (lab.a, lab.b):
        for name in (FWMARK, "net.ipv4.tcp_migrate_req"):
            netns.write_sysctl(name, "0")
        remove_way_back(netns)

"""An engine that is driven by hand, and sockets that are closed at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flow.conftest import bugs, clock, engine
from tests.hbone.conftest import contexts, lab
from tests.inbound.parts import Signer, Sockets

__all__ = ["bugs", "clock", "contexts", "engine", "lab"]


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets()
    with made.stack:
        yield made


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer()

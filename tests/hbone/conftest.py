"""A laboratory of sessions for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flow.conftest import bugs, clock, engine
from tests.flow.driving import Bugs
from tests.hbone.peers import Contexts, Lab, new_contexts

__all__ = ["bugs", "clock", "engine"]


@pytest.fixture(scope="session")
def contexts() -> Contexts:
    return new_contexts()


@pytest.fixture
def lab(contexts: Contexts) -> Iterator[Lab]:
    found = Bugs()
    made = Lab(contexts, found)
    yield made
    made.close()
    assert not found

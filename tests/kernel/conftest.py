"""The laboratory, one for each module of tests, and a fresh redirection for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.lab import Kernel, Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def kernel(lab: Lab) -> Iterator[Kernel]:
    with Kernel(lab) as kernel:
        yield kernel

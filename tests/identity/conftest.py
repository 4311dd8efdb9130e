"""What all tests of identity share."""

from __future__ import annotations

import pytest

from tests.identity.builders import Authority


@pytest.fixture(scope="package")
def root() -> Authority:
    """The root of cluster.local."""
    return Authority.root()

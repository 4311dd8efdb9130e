from collections.abc import Callable

import pytest

from ztunnel.demo.claims import speed
from ztunnel.demo.claims.claim import Claim

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_both_places_are_measured_with_the_mesh_and_without(check: Callable[[Claim], list[str]]) -> None:
    # What else runs on the machine may spoil the ratio, but nothing else.
    assert all("same node: " in complaint and "requests/s" in complaint for complaint in check(speed.CLAIM))

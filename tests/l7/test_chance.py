"""A share of the requests."""

from __future__ import annotations

from random import Random

import pytest

from ztunnel.l7.chance import hits
from ztunnel.model.route_policy import MILLION


@pytest.mark.parametrize(
    ("share", "least", "most"), [(0, 0, 0), (MILLION, 1000, 1000), (MILLION // 2, 420, 580), (1, 0, 1)]
)
def test_a_share_of_requests_is_hit(share: int, least: int, most: int) -> None:
    rng = Random(1)
    assert least <= sum(hits(share, rng) for _ in range(1000)) <= most

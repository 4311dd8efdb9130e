from collections.abc import Callable

import pytest

from ztunnel.demo.claims import identity
from ztunnel.demo.claims.claim import Claim
from ztunnel.demo.claims.shop import Shop
from ztunnel.demo.operate import BUNDLED

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_identity_decides_at_both_ends(check: Callable[[Claim], list[str]]) -> None:
    assert check(identity.CLAIM) == []


def test_without_its_policy_the_claim_fails(shop: Shop, check: Callable[[Claim], list[str]]) -> None:
    policy = (BUNDLED / "policy.yaml").read_text()
    shop.laboratory.apply(policy, delete=True)
    try:
        shop.until("the policy is gone", lambda: not any(shop.dump(node)["policies"] for node in shop.nodes))
        assert any("load calls payments: answered" in complaint for complaint in check(identity.CLAIM))
    finally:
        shop.laboratory.apply(policy)
        shop.until("the policy is back", lambda: all(shop.dump(node)["policies"] for node in shop.nodes))

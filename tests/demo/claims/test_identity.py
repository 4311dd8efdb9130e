from collections.abc import Callable

import pytest

from ztunnel.demo.claims import identity
from ztunnel.demo.claims.claim import Claim
from ztunnel.demo.claims.stage import Stage
from ztunnel.demo.operate import BUNDLED

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_identity_decides_at_both_ends(check: Callable[[Claim], list[str]]) -> None:
    assert check(identity.CLAIM) == []


def test_without_its_policy_the_claim_fails(stage: Stage, check: Callable[[Claim], list[str]]) -> None:
    policy = (BUNDLED / "policy.yaml").read_text()
    stage.laboratory.apply(policy, delete=True)
    try:
        stage.until(
            "the policy is gone", lambda: not any(stage.dump(node)["policies"] for node in stage.nodes)
        )
        assert any("load calls payments: answered" in complaint for complaint in check(identity.CLAIM))
    finally:
        stage.laboratory.apply(policy)
        stage.until("the policy is back", lambda: all(stage.dump(node)["policies"] for node in stage.nodes))

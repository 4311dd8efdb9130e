import pytest

from ztunnel.demo.claims.direct import DENY, STRICT
from ztunnel.demo.claims.enforce import enforced, enforcing, is_complete, policies
from ztunnel.demo.claims.stage import Stage

STATIC_STRICT = "istio_converted_static_strict"


def test_policies_are_complete_if_none_that_is_listed_is_missing() -> None:
    dump = {
        "policies": [{"namespace": "shop", "name": "one"}],
        "workloads": [
            {"uid": "a", "authorizationPolicies": ["shop/one"]},
            {"uid": "b", "authorizationPolicies": []},
        ],
    }
    assert is_complete(policies(dump))
    dump["workloads"][1]["authorizationPolicies"] = ["shop/two"]  # type: ignore[call-overload]
    assert not is_complete(policies(dump))


def keys(stage: Stage) -> set[str]:
    return {policy["name"] for policy in stage.dump("node-2")["policies"]}


@pytest.mark.root
@pytest.mark.timeout(60)
def test_objects_are_in_force_for_the_length_of_a_block(stage: Stage) -> None:
    before = keys(stage)
    with enforced(stage, STRICT):
        assert keys(stage) == {*before, STATIC_STRICT}
    assert keys(stage) == before


@pytest.mark.root
@pytest.mark.timeout(60)
def test_objects_are_in_force_instead_of_the_last_ones(stage: Stage) -> None:
    before = keys(stage)
    with enforcing(stage) as enforce:
        enforce(DENY)
        assert keys(stage) == {*before, "orders-not-for-load"}
        enforce(STRICT)
        assert keys(stage) == {*before, STATIC_STRICT}
    assert keys(stage) == before

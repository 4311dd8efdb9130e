import pytest

from ztunnel.demo.claims.direct import DENY, STRICT
from ztunnel.demo.claims.enforce import enforced, enforcing, is_complete, policies
from ztunnel.demo.claims.shop import Shop

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


def keys(shop: Shop) -> set[str]:
    return {policy["name"] for policy in shop.dump("node-2")["policies"]}


@pytest.mark.root
@pytest.mark.timeout(60)
def test_objects_are_in_force_for_the_length_of_a_block(shop: Shop) -> None:
    before = keys(shop)
    with enforced(shop, STRICT):
        assert keys(shop) == {*before, STATIC_STRICT}
    assert keys(shop) == before


@pytest.mark.root
@pytest.mark.timeout(60)
def test_objects_are_in_force_instead_of_the_last_ones(shop: Shop) -> None:
    before = keys(shop)
    with enforcing(shop) as enforce:
        enforce(DENY)
        assert keys(shop) == {*before, "orders-not-for-load"}
        enforce(STRICT)
        assert keys(shop) == {*before, STATIC_STRICT}
    assert keys(shop) == before

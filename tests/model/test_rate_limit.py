"""Rate limits say no nonsense."""

import pytest

from ztunnel.model.http_policy import Attribute
from ztunnel.model.rate_limit import GlobalLimit, Limit, LimitKey, RateLimitPolicy


def test_a_bucket_holds_its_requests_and_its_burst() -> None:
    assert (Limit(4, 60.0).most, Limit(4, 60.0, 2).most, Limit(0, 1.0, 2).most) == (4, 6, 0)
    assert str(Limit(4, 60.0)) == "4 in 60 s"
    assert str(Limit(4, 0.5, 2)) == "4 in 0.5 s, and 2 more at once"


@pytest.mark.parametrize(
    "numbers", [(-1, 1.0), (1, 0.0), (1, -1.0), (1, float("inf")), (1, float("nan")), (1, 1.0, -1)]
)
def test_what_is_no_limit_is_refused(numbers: tuple) -> None:
    with pytest.raises(ValueError, match="no limit"):
        Limit(*numbers)


@pytest.mark.parametrize("attribute", [Attribute.HEADER, Attribute.CLAIM])
def test_a_header_or_claim_has_a_name(attribute: Attribute) -> None:
    with pytest.raises(ValueError, match="of which name"):
        LimitKey(attribute)
    assert LimitKey(Attribute.PATH).argument == ()


@pytest.mark.parametrize(
    "more",
    [{"host": ""}, {"port": 0}, {"port": 65536}, {"timeout_seconds": 0.0}, {"timeout_seconds": float("inf")}],
)
def test_a_service_can_be_asked(more: dict) -> None:
    with pytest.raises(ValueError, match=r"no (service|timeout)"):
        GlobalLimit(**{"host": "a", "port": 1, "domain": "d", "descriptors": ()} | more)


def test_services_name_it_by_namespace_and_name() -> None:
    assert RateLimitPolicy("p", "shop").key == "shop/p"

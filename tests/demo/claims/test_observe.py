import pytest

from ztunnel.demo.claims.certify import account
from ztunnel.demo.claims.observe import served_serial
from ztunnel.demo.claims.shop import FAR, Shop
from ztunnel.demo.failure import LaboratoryFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def serial(shop: Shop) -> int:
    certificates = shop.dump(FAR)["certificates"]
    return next(
        int(each["certChain"][0]["serialNumber"]) for each in certificates if "orders" in each["identity"]
    )


def test_the_serial_is_that_of_the_certificate_that_the_proxy_has(shop: Shop) -> None:
    before = serial(shop)
    seen = served_serial(shop, "orders-2", account("load"))
    assert seen in (before, serial(shop))


def test_nobody_behind_the_port_is_an_error(shop: Shop) -> None:
    with pytest.raises(LaboratoryFailed, match="no TLS handshake"):
        served_serial(shop, "client", account("load"))

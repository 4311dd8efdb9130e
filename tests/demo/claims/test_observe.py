import pytest

from ztunnel.demo.claims.certify import account
from ztunnel.demo.claims.observe import served_serial
from ztunnel.demo.claims.stage import FAR, Stage
from ztunnel.demo.failure import LaboratoryFailed

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def serial(stage: Stage) -> int:
    certificates = stage.dump(FAR)["certificates"]
    return next(
        int(each["certChain"][0]["serialNumber"]) for each in certificates if "orders" in each["identity"]
    )


def test_the_serial_is_that_of_the_certificate_that_the_proxy_has(stage: Stage) -> None:
    before = serial(stage)
    seen = served_serial(stage, "orders-2", account("load"))
    assert seen in (before, serial(stage))


def test_nobody_behind_the_port_is_an_error(stage: Stage) -> None:
    with pytest.raises(LaboratoryFailed, match="no TLS handshake"):
        served_serial(stage, "client", account("load"))

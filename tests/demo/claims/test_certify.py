import ssl
from pathlib import Path

import pytest

from ztunnel.demo.claims.certify import account, certify
from ztunnel.demo.claims.shop import Shop

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_an_account_is_one_of_the_shop() -> None:
    assert str(account("load")) == "spiffe://cluster.local/ns/shop/sa/load"


def test_a_certificate_is_of_the_account_and_fits_its_key(shop: Shop, tmp_path: Path) -> None:
    certify(shop, tmp_path, account("anyone"))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    leaf = ssl.PEM_cert_to_DER_cert(
        (tmp_path / "chain.pem").read_text().partition("-----END CERTIFICATE-----")[0]
        + "-----END CERTIFICATE-----\n"
    )
    assert b"sa/anyone" in leaf

"""What a Secret lacks for what a rule asks for."""

import pytest

from ztunnel.model.credential import Credential
from ztunnel.model.traffic import ClientTls, TlsMode

WHOLE = Credential("s", "shop", "c", "k", "r")
SIMPLE, MUTUAL = ClientTls(TlsMode.SIMPLE), ClientTls(TlsMode.MUTUAL)
LAX = ClientTls(TlsMode.SIMPLE, skip_verify=True)
NO_KEY = "Secret shop/s has no tls.crt and tls.key (or cert and key)"
NO_ROOTS = "neither Secret shop/s nor shop/s-cacert has a ca.crt (or cacert), by which servers are proved"


@pytest.mark.parametrize(
    ("credential", "tls", "lacks"),
    [
        (WHOLE, SIMPLE, ""),
        (WHOLE, MUTUAL, ""),
        (Credential("s", "shop", roots="r"), SIMPLE, ""),
        (Credential("s", "shop", roots="r"), MUTUAL, NO_KEY),
        (Credential("s", "shop", "c", roots="r"), MUTUAL, NO_KEY),
        (Credential("s", "shop", "c", "k"), MUTUAL, NO_ROOTS),
        (Credential("s", "shop"), LAX, ""),
        (Credential("s", "shop", problem="gone"), SIMPLE, "gone"),
        (Credential("s", "shop", roots="r", problem="gone"), SIMPLE, ""),  # of another Secret
        (Credential("s", "shop", roots="r", problem="gone"), MUTUAL, "gone"),
    ],
)
def test_what_it_lacks(credential, tls, lacks):
    assert credential.lacks(tls) == lacks


def test_the_key_is_not_shown():
    assert "kkk" not in repr(Credential("s", "shop", "c", "kkk"))
    assert WHOLE.key == "shop/s"

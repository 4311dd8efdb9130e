from collections.abc import Callable

import pytest

from ztunnel.demo.claims import secrecy
from ztunnel.demo.claims.claim import Claim
from ztunnel.demo.claims.secrecy import count_marks, new_mark, reads_plain
from ztunnel.demo.claims.shop import Shop
from ztunnel.state.lookup import HBONE_PORT


def test_a_mark_is_new_and_never_taken_for_http() -> None:
    marks = {new_mark() for _ in range(100)}
    assert len(marks) == 100
    assert all(mark.isalnum() and mark.startswith("m") and len(mark) == 33 for mark in marks)


@pytest.mark.root
@pytest.mark.timeout(60)
def test_nothing_is_readable_between_nodes(shop: Shop, check: Callable[[Claim], list[str]]) -> None:
    shop.until(
        "no session stands: the claim is about the handshake of a new one",
        lambda: not [each for each in shop.sockets("load") if each.remote.port == HBONE_PORT],
    )
    assert check(secrecy.CLAIM) == []


@pytest.mark.root
@pytest.mark.timeout(60)
def test_what_passes_in_the_open_is_seen(shop: Shop) -> None:
    mark, caller = new_mark(), shop.caller("client")
    with shop.laboratory.capture() as capture:
        caller.open("open", shop.pod("orders-2"))
        caller.exchange("open", mark, 10)
        assert (count_marks(capture, mark), reads_plain(capture, 8080)) == (20, True)
        caller.close("open")

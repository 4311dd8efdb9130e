import pytest

from ztunnel.demo.claims.shop import Shop
from ztunnel.demo.claims.talk import Answer, Caller, parse_answer
from ztunnel.demo.failure import LaboratoryFailed


def test_an_answer_is_read_as_a_caller_prints_it() -> None:
    ends = '"local": ["10.0.0.1", 5], "peer": ["10.0.0.2", 80], "mark": 3'
    answer = parse_answer(f'{{"error": "", "seconds": 0.5, "at": 7.0, {ends}}}')
    assert answer == Answer("", 0.5, 7.0, ("10.0.0.1", 5), ("10.0.0.2", 80), 3)
    ended = parse_answer('{"ended": {"a": {"error": "ECONNRESET", "at": 6.5}}, "error": ""}').ended
    assert ended == {"a": ("ECONNRESET", 6.5)}


@pytest.mark.root
@pytest.mark.timeout(60)
def test_a_caller_opens_asks_exchanges_and_closes(shop: Shop) -> None:
    with Caller(shop.laboratory, "load") as caller:
        called = caller.call(shop.pod("orders-1"))
        assert (called.error, called.said["pod"], called.peer[1]) == ("", "orders-1", 8080)
        assert not caller.open("a", shop.pod("orders-2")).error
        assert caller.exchange("a", "some text", 100).echoed == 900
        assert caller.lives("a")
        assert caller.ends(["a"], 0.0) == {}
        caller.close("a")


@pytest.mark.root
@pytest.mark.timeout(60)
def test_a_caller_that_is_gone_is_an_error(shop: Shop) -> None:
    caller = Caller(shop.laboratory, "load")
    caller.end()
    with pytest.raises((LaboratoryFailed, ValueError)):
        caller.lives("a")

import pytest

from tests.demo.bookinfo.conftest import Staged, seen, walked
from ztunnel.demo.bookinfo.fault import ABORT, DELAY
from ztunnel.demo.bookinfo.visit import Visit

GONE = Visit(200, 6.1, errors=("Error fetching product reviews!",))
STARLESS = seen("v2", color="", errors=("Ratings service is currently unavailable",))[0]


FINE = seen("v1")[0]


def place(jason: Visit, others: Visit = FINE) -> Staged:
    return Staged(lambda count, user, **_: [jason if user == "jason" else others] * count)


def test_they_hold_where_jason_alone_suffers() -> None:
    assert walked(DELAY, place(GONE)) == []
    assert walked(ABORT, place(STARLESS)) == []


@pytest.mark.parametrize(
    "jason", [seen("v2")[0], Visit(200, 2.0, errors=GONE.errors), Visit(200, 9.0, errors=GONE.errors)]
)
def test_a_delay_does_not_hold_where_he_waits_otherwise(jason: Visit) -> None:
    assert any("jason waits" in line for line in walked(DELAY, place(jason)))


@pytest.mark.parametrize("jason", [seen("v2")[0], seen("v1")[0], GONE])
def test_an_abort_does_not_hold_where_he_sees_something_else(jason: Visit) -> None:
    assert any("jason, 0 of 20" in line for line in walked(ABORT, place(jason)))


@pytest.mark.parametrize("others", [GONE, STARLESS, seen("v1", seconds=3.0)[0], seen("v1", status=500)[0]])
def test_neither_holds_where_others_suffer(others: Visit) -> None:
    for step, jason in ((DELAY, GONE), (ABORT, STARLESS)):
        assert walked(step, place(jason, others)) == ["not so: everybody else: 0 of 20 visits without fault"]

"""From what the load generators print to medians and ratios."""

from __future__ import annotations

import pytest

from bench.cells import Cell, Load, Route
from bench.figures import Result, Unmeasured, parse_bulk, parse_wrk

REQUESTS = Cell(Route.TWO_NODES, Load.REQUESTS, 8)
CONNECTIONS = Cell(Route.TWO_NODES, Load.CONNECTIONS, 8)
PRINTED = """Running 2s test @ http://127.0.0.1:80/
Requests/sec:  15000.00
{"requests": 30000, "duration": 2000000, "p50": 61, "p99": 1200, "errors": 0}
"""


def test_requests_give_a_rate_and_two_percentiles_in_seconds() -> None:
    assert parse_wrk(REQUESTS, PRINTED) == pytest.approx((15_000, 61e-6, 1.2e-3))


def test_new_connections_give_a_rate_alone() -> None:
    assert parse_wrk(CONNECTIONS, PRINTED) == (15_000,)


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("", "nothing was printed"),
        ("unable to connect to 10.0.0.1:80", "unable to connect"),
        (PRINTED.replace('"errors": 0', '"errors": 7'), "7 errors in 30000 requests"),
        (PRINTED.replace("30000", "0"), "0 requests"),
    ],
)
def test_a_load_that_went_wrong_gives_no_figures(printed: str, said: str) -> None:
    with pytest.raises(Unmeasured, match=said):
        parse_wrk(REQUESTS, printed)


def test_bulk_gives_bytes_per_second() -> None:
    assert parse_bulk('{"bytes": 3000, "seconds": 1.5}') == (2000.0,)


def test_a_ratio_is_that_of_the_medians() -> None:
    result = Result(CONNECTIONS, {"ours": [(10.0,), (40.0,), (20.0,)], "theirs": [(1.0,), (5.0,), (100.0,)]})
    assert result.median("ours", 0) == 20
    assert result.ratio("ours", "theirs", 0) == 4

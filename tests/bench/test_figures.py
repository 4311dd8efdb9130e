"""From what the load generators print to medians and ratios."""

from __future__ import annotations

import pytest

from bench.cells import Cell, Load, Route
from bench.figures import Result, Unmeasured, parse_bulk, parse_h2load, parse_wrk

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
    assert result.spread("ours", 0) == 0.75


def test_of_nothing_there_is_no_ratio() -> None:
    result = Result(CONNECTIONS, {"ours": [(10.0,)], "theirs": [(0.0,)], "failed": []})
    assert result.ratio("ours", "theirs", 0) is None
    assert result.ratio("ours", "failed", 0) is None
    assert result.spread("theirs", 0) == 0


STREAMS = Cell(Route.WAYPOINT, Load.STREAMS, 64)
SAID = """Stopped all clients for thread #0

finished in 1.01s, 52048.50 req/s, 6.35MB/s
requests: 4 total, 5 started, 4 done, 4 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 4 2xx, 0 3xx, 0 4xx, 0 5xx
"""
LOG = "1795963609223618\t200\t556\n1795963609223619\t200\t100\n1795963609223619\t200\t590\n"


def test_h2load_gives_a_rate_and_its_log_two_percentiles() -> None:
    assert parse_h2load(STREAMS, SAID, LOG) == pytest.approx((52_048.5, 556e-6, 590e-6))


@pytest.mark.parametrize(
    ("printed", "log", "said"),
    [
        ("", "", "nothing was printed"),
        ("client could not connect to host", "", "could not connect"),
        (SAID, "", "0 requests"),
        (SAID.replace("0 errored", "3 errored"), LOG, "3 errors in 3 requests"),
        (SAID.replace("0 5xx", "2 5xx"), LOG, "2 errors"),
    ],
)
def test_h2load_that_went_wrong_gives_no_figures(printed: str, log: str, said: str) -> None:
    with pytest.raises(Unmeasured, match=said):
        parse_h2load(STREAMS, printed, log)

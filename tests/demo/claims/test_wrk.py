import pytest

from ztunnel.demo.claims.wrk import WrkResult, best, micros, parse_wrk, thousands
from ztunnel.demo.failure import LaboratoryFailed

PRINTED = """Running 1m test @ http://10.244.1.6:80/
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   181.93us   92.44us   3.17ms   91.21%
    Req/Sec    43.71k     3.11k   48.14k    60.00%
  Latency Distribution
     50%  165.00us
     75%  192.00us
     99%    0.51ms
  21932 requests in 503.17ms, 4.88MB read
Requests/sec:  43587.81
Transfer/sec:      9.70MB
"""


def test_a_pace_is_read_from_what_wrk_prints() -> None:
    assert parse_wrk(PRINTED) == WrkResult(43587.81, pytest.approx(165e-6))
    assert parse_wrk(PRINTED.replace("165.00us", "1.50ms")).p50_seconds == pytest.approx(1.5e-3)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (PRINTED + "  Socket errors: connect 0, read 3, write 0, timeout 0\n", "read 3"),
        (PRINTED + "  Non-2xx or 3xx responses: 7\n", "responses: 7"),
        ("unable to connect to 10.244.1.6:80 Connection refused\n", "Connection refused"),
        ("", "printed nothing"),
    ],
)
def test_a_run_with_errors_is_none(text: str, why: str) -> None:
    with pytest.raises(LaboratoryFailed, match=why):
        parse_wrk(text)


def test_the_best_is_that_of_each_figure() -> None:
    assert best([WrkResult(10, 3), WrkResult(30, 2), WrkResult(20, 1)]) == WrkResult(30, 1)


def test_figures_are_shown_short() -> None:
    assert (thousands(43587.81), micros(165e-6)) == ("43.6 k", "165 us")

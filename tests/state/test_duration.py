"""Durations are read in seconds, and what is none has a fault."""

import pytest

from ztunnel.state.duration import read_duration, read_gateway_duration
from ztunnel.state.value import ValueField


def read(reader, value, **more):
    faults = []
    found = reader(ValueField({"d": value}, "", faults), "d", **more)
    return found, [fault.message for fault in faults]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("1.5s", 1.5),
        ("1h2m3s", 3723),
        ("250ms", 0.25),
        (".5s", 0.5),
        ("0s", 0),
        ("0", 0),
        ("3us", 3e-6),
    ],
)
def test_a_duration_of_istio_is_read(text, seconds):
    assert read(read_duration, text) == (pytest.approx(seconds), [])


@pytest.mark.parametrize("text", ["", "5", "-1s", "1 s", "1d", "s", "1.s.s", "1s1", "1" * 13 + "s", "1.1.1s"])
def test_what_is_no_duration_has_a_fault(text):
    found, faults = read(read_duration, text)
    assert found is None
    assert faults[0].startswith("not a duration")


@pytest.mark.parametrize(("text", "seconds"), [("1h30m", 5400), ("10s", 10), ("500ms", 0.5), ("0s", 0)])
def test_a_duration_of_the_gateway_api_is_read(text, seconds):
    assert read(read_gateway_duration, text) == (pytest.approx(seconds), [])


@pytest.mark.parametrize("text", ["1.5s", "100000s", "1s1s1s1s1s", "1us", "0"])
def test_the_gateway_api_knows_fewer(text):
    found, faults = read(read_gateway_duration, text)
    assert (found, len(faults)) == (None, 1)


def test_one_that_is_too_short_or_no_text_has_a_fault_and_an_absent_one_none():
    assert read(read_duration, "1ms", least=0.002) == (None, ["must not be shorter than 0.002 s"])
    assert read(read_duration, 5)[1] == ["must be a string, is a number; write it in quotes"]
    assert read(read_duration, None) == (None, [])

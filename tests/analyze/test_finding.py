"""Findings in order, as lines, and those that are not to be shown."""

from __future__ import annotations

import pytest

from ztunnel.analyze.finding import CODES, Finding, Level, parse_suppression, without

BAD = Finding("IST0106", Level.ERROR, "Service shop/web", "wrong", "a.yaml", 3)
DOUBTFUL = Finding("IST0127", Level.WARNING, "AuthorizationPolicy shop/x", "nobody")
SMALL = Finding("IST0118", Level.INFO, "Service shop/web", "port", "a.yaml")


def test_a_finding_reads_like_istioctl() -> None:
    assert str(BAD) == "Error [IST0106] (Service shop/web a.yaml:3) wrong"
    assert str(SMALL) == "Info [IST0118] (Service shop/web a.yaml) port"
    assert str(DOUBTFUL) == "Warning [IST0127] (AuthorizationPolicy shop/x) nobody"


def test_the_worst_comes_first_and_each_once() -> None:
    assert without([SMALL, DOUBTFUL, BAD, SMALL], ()) == [BAD, DOUBTFUL, SMALL]


def test_what_is_suppressed_is_not_shown() -> None:
    assert without([BAD, SMALL], [parse_suppression("IST0118=Service shop/*")]) == [BAD]
    assert without([SMALL], [parse_suppression("IST0118=Service bank/*")]) == [SMALL]
    assert without([SMALL], [parse_suppression("IST0127=*")]) == [SMALL]


@pytest.mark.parametrize("text", ["IST0118", "IST0118=", "IST9999=*"])
def test_a_suppression_that_would_do_nothing_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not CODE=|no code"):
        parse_suppression(text)


def test_codes_are_unique() -> None:
    assert len({each.code for each in CODES}) == len({each.name for each in CODES}) == len(CODES)

import pytest

from ztunnel.demo.claims.claim import Claim, Finding, Findings, Outcome, parse_numbers, select
from ztunnel.errors import ConfigError

CLAIMS = tuple(
    Claim(number, f"claim {number}", "by looking", lambda shop, findings: None) for number in (1, 2, 7)
)


def test_findings_keep_their_order_and_tell_whether_they_hold() -> None:
    findings = Findings()
    assert findings.note("first")
    assert not findings.note("second", False)
    assert findings.found == [Finding("first", True), Finding("second", False)]


@pytest.mark.parametrize(
    ("found", "error", "holds"),
    [
        ((Finding("a", True), Finding("b", True)), "", True),
        ((Finding("a", True), Finding("b", False)), "", False),
        ((Finding("a", True),), "the node is gone", False),
        ((), "", False),
    ],
)
def test_a_claim_holds_if_it_was_measured_to_its_end_and_nothing_speaks_against_it(
    found: tuple[Finding, ...], error: str, holds: bool
) -> None:
    assert Outcome(CLAIMS[0], found, 1.0, error).holds is holds


@pytest.mark.parametrize(
    ("text", "chosen"), [("", (1, 2, 7)), ("7", (7,)), ("7,1", (1, 7)), (" 2 , 2", (2,))]
)
def test_claims_are_chosen_by_their_numbers_and_stay_in_their_order(
    text: str, chosen: tuple[int, ...]
) -> None:
    assert tuple(claim.number for claim in select(CLAIMS, parse_numbers(text))) == chosen


def test_a_number_without_a_claim_is_refused() -> None:
    with pytest.raises(ConfigError, match="--only: 3, 9: the claims are numbered 1 to 7"):
        select(CLAIMS, (9, 3, 1))


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="--only: 1,two: not numbers"):
        parse_numbers("1,two")

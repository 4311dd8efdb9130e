import pytest

from ztunnel.demo.claims.shares import is_even, tolerance


def test_the_tolerance_is_five_standard_deviations_of_a_binomial_distribution() -> None:
    assert tolerance(10_000, 4) == pytest.approx(216.5, abs=0.1)


@pytest.mark.parametrize(
    ("answers", "even"),
    [
        ({"a": 250, "b": 260, "c": 245, "d": 245}, True),
        ({"a": 320, "b": 230, "c": 225, "d": 225}, False),  # one too many by 70, where 68 are allowed
        ({"a": 334, "b": 333, "c": 333}, False),
        ({"a": 250, "b": 250, "c": 250, "d": 249}, False),
        ({"a": 250, "b": 250, "c": 250, "d": 250, "e": 0}, False),
        ({}, False),
    ],
)
def test_every_endpoint_answers_its_share_and_nobody_else(answers: dict[str, int], even: bool) -> None:
    assert is_even(answers, 1000, 4) is even

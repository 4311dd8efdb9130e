import pytest

from tests.demo.bookinfo.conftest import Staged, walked
from ztunnel.demo.bookinfo.circuit import STEP
from ztunnel.demo.bookinfo.visit import Visit


def place(taken: int, refused_after: float = 0.05, flagged: int = 4) -> Staged:
    counted = [3]

    def scene(count: int, **_: object) -> list[Visit]:
        if count == 1:
            return [Visit(200, 1.0)]
        counted[0] += flagged
        return [*[Visit(200, 1.0)] * taken, *[Visit(503, refused_after)] * (count - taken)]

    return Staged(scene, lambda: counted[0])


def test_it_holds_where_two_are_taken_and_two_refused_at_once() -> None:
    assert walked(STEP, place(2)) == []


@pytest.mark.parametrize("flagged", [5, 6])
def test_a_visit_may_pass_at_its_second_try(flagged: int) -> None:
    assert walked(STEP, place(2, flagged=flagged)) == []


def test_the_one_connection_stands_before_anything_is_counted() -> None:
    staged = place(2)
    walked(STEP, staged)
    assert [look["count"] for look in staged.looks] == [1, 4]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (place(4), "{200: 4}"),
        (place(0), "{503: 4}"),
        (place(2, refused_after=3.0), "the slowest refusal came after 3.00 s"),
        (place(2, flagged=7), "7 requests have the flag UO"),
        (place(2, flagged=3), "not within 0 s: the refusals are counted"),
    ],
)
def test_it_does_not_hold_where_it_is_otherwise(wrong: Staged, said: str) -> None:
    assert any(said in line for line in walked(STEP, wrong))

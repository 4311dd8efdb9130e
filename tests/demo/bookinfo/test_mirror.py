import pytest

from tests.demo.bookinfo.conftest import Staged, seen, walked
from ztunnel.demo.bookinfo.mirror import STEP


def place(version: str, copies: int) -> Staged:
    asked = [7]

    def scene(count: int, **_: object) -> list:
        if count > 10:
            asked[0] += copies
        return seen(version, count)

    return Staged(scene, copies=lambda: asked[0])


def test_it_holds_where_half_is_copied_and_nobody_notices() -> None:
    assert walked(STEP, place("v1", 60)) == []


@pytest.mark.parametrize(
    ("version", "copies", "said"),
    [
        ("v3", 60, "answers: {'v3': 120}"),
        ("v1", 120, "asked 120 times"),
        ("v1", 3, "not within 0 s: v3 has had its copies"),
    ],
)
def test_it_does_not_hold_where_it_is_otherwise(version: str, copies: int, said: str) -> None:
    assert any(said in line for line in walked(STEP, place(version, copies)))

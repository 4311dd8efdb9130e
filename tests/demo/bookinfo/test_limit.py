import pytest

from tests.demo.bookinfo.conftest import Staged, seen, walked
from ztunnel.demo.bookinfo.limit import STEP
from ztunnel.demo.bookinfo.visit import Visit


def place(passing: int = 5, anonymous: int = 12, flagged: int = 14) -> Staged:
    counted = [3]

    def scene(count: int, user: str = "", **_: object) -> list[Visit]:
        good = min(count, passing if user else anonymous)
        if user:
            counted[0] += flagged
        return [*seen("v1", good), *[Visit(200, 0.01, errors=("reviews",))] * (count - good)]

    return Staged(scene, lambda: counted[0], flag="RL")


def test_it_holds_where_each_user_has_five() -> None:
    it = place()
    assert walked(STEP, it) == []
    assert [one.key.kind for one in it.deleted] == ["RateLimitPolicy"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (place(passing=6), "jason: 6 visits show reviews"),
        (place(passing=0), "martha: 0 visits show reviews"),
        (place(anonymous=5), "nobody: 5 visits show reviews"),
        (place(flagged=15), "30 requests have the flag RL"),
        (place(flagged=0), "not within 0 s: the refusals are counted"),
    ],
)
def test_it_does_not_hold_where_it_is_otherwise(wrong: Staged, said: str) -> None:
    assert any(said in line for line in walked(STEP, wrong))

import pytest

from tests.demo.bookinfo.conftest import Staged, seen, walked
from ztunnel.demo.bookinfo.spread import STEP
from ztunnel.demo.bookinfo.visit import Visit

EVEN = [*seen("v1", 20), *seen("v2", 20), *seen("v3", 20)]


def place(visits: list[Visit], more: int = 0) -> Staged:
    """The metrics count three requests a visit, and `more`."""
    asked = [0]

    def scene(count: int, **_: object) -> list[Visit]:
        asked[0] += 3 * count + (more if count == 60 else 0)
        return visits[:count]

    return Staged(scene, lambda: asked[0])


def test_it_holds_where_each_version_has_its_share() -> None:
    assert walked(STEP, place(EVEN)) == []


@pytest.mark.parametrize(
    ("visits", "said"),
    [
        (seen("v1", 60), "v1 60, v2 0, v3 0"),
        ([*seen("v1", 3), *seen("v2", 28), *seen("v3", 29)], "v1 3, v2 28"),
        ([*EVEN[:-1], *seen("v3", status=503)], "{200: 59, 503: 1}"),
        ([*EVEN[:-1], *seen("v3", color="black")], "red ones"),
        ([*EVEN[:-1], *seen("v4")], "v1 20"),
    ],
)
def test_it_does_not_hold_where_anything_is_otherwise(visits: list[Visit], said: str) -> None:
    assert any(said in line for line in walked(STEP, place(visits)))


def test_it_does_not_hold_where_requests_go_around_the_waypoint() -> None:
    assert any("grew by 181" in line for line in walked(STEP, place(EVEN, 1)))
    assert walked(STEP, place(EVEN, -3)) == [
        "not measured to its end: not within 0 s: the waypoint has counted all requests"
    ]

import pytest

from tests.demo.bookinfo.conftest import Staged, seen, walked
from ztunnel.demo.bookinfo.shift import STEP
from ztunnel.demo.bookinfo.visit import Visit

V3 = {"virtual-service-all-v1": 0, "90-10": 20, "50-v3": 100, "reviews-v3": 200}


def place(**wrong: int) -> Staged:
    """Version 3 is seen as often as meant, or as `wrong` says of the file that was applied last."""
    known = {**V3, **{name.replace("_", "-"): count for name, count in wrong.items()}}

    def scene(count: int, applied: tuple[str, ...], **_: object) -> list[Visit]:
        third = next(count for name, count in known.items() if applied[-1].endswith(name))
        return [*seen("v1", count - third), *seen("v3", third)]

    return Staged(scene)


def test_it_holds_where_shares_are_as_meant() -> None:
    assert walked(STEP, place()) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"virtual-service-all-v1": 1}, "all to v1"),
        ({"90-10": 0}, "10% to v3: 0 of 200"),
        ({"90-10": 100}, "10% to v3: 100"),
        ({"50-v3": 200}, "50% to v3: 200"),
        ({"reviews-v3": 199}, "100% to v3: 199"),
    ],
)
def test_it_does_not_hold_where_a_share_is_another(wrong: dict[str, int], said: str) -> None:
    assert any(said in line for line in walked(STEP, place(**wrong)))


def test_a_third_version_is_no_share_of_the_first() -> None:
    strange = Staged(lambda count, **_: seen("v2", count))
    assert len(walked(STEP, strange)) == 4

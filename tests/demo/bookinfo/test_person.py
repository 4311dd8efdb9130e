from tests.demo.bookinfo.conftest import Staged, seen, walked
from ztunnel.demo.bookinfo.person import STEP


def test_it_holds_where_jason_alone_sees_version_2() -> None:
    assert walked(STEP, Staged(lambda count, user, **_: seen("v2" if user == "jason" else "v1", count))) == []


def test_it_does_not_hold_where_others_see_it_too_or_he_does_not() -> None:
    assert len(walked(STEP, Staged(lambda count, **_: seen("v2", count)))) == 2
    assert len(walked(STEP, Staged(lambda count, **_: seen("v1", count)))) == 1

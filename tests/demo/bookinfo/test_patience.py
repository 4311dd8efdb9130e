import pytest

from tests.demo.bookinfo.conftest import Staged, walked
from ztunnel.demo.bookinfo.patience import RETRY, TIMEOUT
from ztunnel.demo.bookinfo.visit import Visit


def late(status: int, seconds: float) -> Staged:
    return Staged(lambda count, **_: [Visit(status, seconds)] * count)


def test_a_timeout_holds_where_twice_half_a_second_is_waited() -> None:
    assert walked(TIMEOUT, late(504, 1.01)) == []


@pytest.mark.parametrize(("status", "seconds"), [(200, 1.01), (504, 0.5), (504, 2.01)])
def test_it_does_not_hold_where_it_is_otherwise(status: int, seconds: float) -> None:
    assert len(walked(TIMEOUT, late(status, seconds))) == 1


def failing(without: int, with_retries: int) -> Staged:
    def scene(count: int, applied: tuple[str, ...], **_: object) -> list[Visit]:
        failed = without if applied[-1].endswith("no-retry") else with_retries
        return [*[Visit(503, 0.0)] * failed, *[Visit(200, 0.0)] * (count - failed)]

    return Staged(scene)


def test_retries_hold_where_a_sixteenth_fails_of_half() -> None:
    assert walked(RETRY, failing(100, 12)) == []


@pytest.mark.parametrize(("without", "with_retries"), [(0, 12), (100, 100), (200, 12), (100, 50)])
def test_they_do_not_hold_where_more_or_less_fails(without: int, with_retries: int) -> None:
    assert len(walked(RETRY, failing(without, with_retries))) == 1

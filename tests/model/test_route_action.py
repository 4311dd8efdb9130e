"""What can become of a request, and what makes no sense."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ztunnel.model.route_action import (
    NO_EDITS,
    Destination,
    DirectResponse,
    Forward,
    HeaderEdits,
    PathEdit,
    PathEditKind,
    Redirect,
    Refusal,
    Rewrite,
)
from ztunnel.model.service import ServiceName

REVIEWS = ServiceName("shop", "reviews.shop.svc.cluster.local")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: HeaderEdits(remove=("X-A",)), "small letters"),
        (lambda: HeaderEdits(set=((":path", "/"),)), "no pseudo-header"),
        (lambda: HeaderEdits(add=(("host", "a"),)), "not host"),
        (lambda: HeaderEdits(add=(("", "a"),)), "is named"),
        (lambda: PathEdit(PathEditKind.REGEX, "/"), "by a pattern"),
        (lambda: PathEdit(PathEditKind.FULL, "/", pattern="a"), "by a pattern"),
        (lambda: PathEdit(PathEditKind.FULL, "a"), "begins with a slash"),
        (Rewrite, "another path or another authority"),
        (lambda: Refusal(404, "no"), "500 or 503"),
        (lambda: Destination(REVIEWS, weight=-1), "not negative"),
        (lambda: Destination(REVIEWS, port=65536), "not a port"),
        (lambda: Destination(REVIEWS, labels=(("b", ""), ("a", ""))), "sorted"),
        (lambda: Forward(()), "has a destination"),
        (lambda: Forward((Destination(REVIEWS, weight=0),) * 2), "one has a weight"),
        (lambda: Redirect(300), "has status"),
        (lambda: Redirect(scheme="ftp"), "http or https"),
        (lambda: Redirect(port=-1), "not a port"),
        (lambda: DirectResponse(100), "200 to 599"),
        (lambda: DirectResponse(600), "200 to 599"),
    ],
)
def test_it_makes_no_sense(make: Callable[[], object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make()


def test_one_destination_needs_no_weight() -> None:
    assert Forward((Destination(REVIEWS, weight=0),)).destinations[0].edits is NO_EDITS


def test_a_prefix_can_be_taken_away() -> None:
    assert Rewrite(PathEdit(PathEditKind.MATCHED, "")).path
    assert PathEdit(PathEditKind.REGEX, r"/\1", "/x/(.*)").pattern

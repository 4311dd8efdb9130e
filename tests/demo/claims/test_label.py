from collections.abc import Callable

import pytest

from ztunnel.demo.claims import label
from ztunnel.demo.claims.claim import Claim

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_the_label_can_come_off_and_on_again_without_cutting_a_connection(
    check: Callable[[Claim], list[str]],
) -> None:
    assert check(label.CLAIM) == []

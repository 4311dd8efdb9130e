from collections.abc import Callable

import pytest

from ztunnel.demo.claims import plaintext
from ztunnel.demo.claims.claim import Claim

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_plaintext_from_outside_is_refused_or_counted(check: Callable[[Claim], list[str]]) -> None:
    assert check(plaintext.CLAIM) == []

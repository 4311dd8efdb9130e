"""One laboratory of the bundled application for all claims. Its certificates live shortly."""

import os
from collections.abc import Callable, Iterator

import pytest

from ztunnel.demo.claims.claim import Claim
from ztunnel.demo.claims.perform import TTL_SECONDS, measure
from ztunnel.demo.claims.shop import Shop
from ztunnel.demo.claims.table import complaints
from ztunnel.demo.operate import Laboratory


@pytest.fixture(scope="session")
def shop() -> Iterator[Shop]:
    """Each test leaves it as it was."""
    with pytest.MonkeyPatch.context() as patch, Laboratory(f"d{os.getpid()}x0") as laboratory:
        patch.setenv("SECRET_TTL", f"{TTL_SECONDS}s")
        laboratory.up()
        with Shop(laboratory) as shop:
            yield shop


@pytest.fixture(scope="session")
def check(shop: Shop) -> Callable[[Claim], list[str]]:
    """What speaks against a claim when it is measured; nothing if it holds."""

    def measured(claim: Claim) -> list[str]:
        outcome = measure(claim, shop)
        assert outcome.found, outcome.error
        return complaints(outcome)

    return measured

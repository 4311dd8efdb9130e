import itertools
import os
from collections.abc import Iterator

import pytest

from ztunnel.demo import find
from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.perform import perform
from ztunnel.demo.claims.shop import Shop
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

COUNTER = itertools.count(1)


@pytest.fixture
def laboratory() -> Iterator[Laboratory]:
    with Laboratory(f"d{os.getpid()}x{next(COUNTER)}") as laboratory:
        yield laboratory


def look(shop: Shop, findings: Findings) -> None:
    findings.note(f"lifetime {shop.dump('node-1')['config']['secret_ttl_seconds']}")


def stumble(shop: Shop, findings: Findings) -> None:
    findings.note("so far so good")
    raise LaboratoryFailed("a stone in the way")


LOOK, STUMBLE = Claim(1, "It is there", "by looking", look), Claim(2, "It walks", "by walking", stumble)


def test_claims_are_measured_on_a_laboratory_that_is_gone_afterwards(
    laboratory: Laboratory, capsys: pytest.CaptureFixture[str]
) -> None:
    before = os.environ.get("SECRET_TTL")
    assert perform(laboratory, [LOOK], keep=False)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "2 nodes and 8 pods are up" in printed
    assert "lifetime 8.0" in printed
    assert "1 of 1 claims hold" in printed
    assert not find.exists(laboratory.names)
    assert os.environ.get("SECRET_TTL") == before


def test_what_keeps_a_claim_from_being_measured_fails_it_and_the_next_one_is_measured(
    laboratory: Laboratory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not perform(laboratory, [STUMBLE, LOOK], keep=True)
    printed = capsys.readouterr().out
    assert "not measured to its end: a stone in the way" in printed
    assert "1 of 2 claims hold" in printed
    assert find.exists(laboratory.names)


def test_a_laboratory_that_was_up_before_is_left_alone(laboratory: Laboratory) -> None:
    laboratory.up(start_nodes=False)
    with pytest.raises(LaboratoryFailed, match="is already up"):
        perform(Laboratory(laboratory.names.lab), [LOOK], keep=False)
    assert all(pod.running for pod in laboratory.survey().pods)

"""The authority in force may change between two signatures."""

from __future__ import annotations

import pytest

from tests.identity.builders import ALICE, NOW
from tests.identity.sets import one_step
from ztunnel.errors import NoCertificate
from ztunnel.identity import csr
from ztunnel.identity.authority import Authority, read_authority
from ztunnel.identity.plugged_in import assemble
from ztunnel.identity.standing import StandingAuthority


def authority() -> Authority:
    return read_authority(assemble(one_step().files(), str), "cluster.local", NOW)


def test_before_the_first_nothing_is_signed() -> None:
    with pytest.raises(NoCertificate, match="has not been read yet"):
        StandingAuthority().sign(csr.create(ALICE).csr_pem, ALICE, 60, NOW)


def test_the_one_that_was_taken_last_signs() -> None:
    standing, first, second = StandingAuthority(), authority(), authority()
    for each in (first, second):
        assert standing.take(each)
        assert standing.sign(csr.create(ALICE).csr_pem, ALICE, 60, NOW)[-1] == each.roots_pem


def test_only_another_one_is_told() -> None:
    files = one_step().files()
    first, same = (read_authority(assemble(files, str), "cluster.local", NOW) for _ in range(2))
    standing, told = StandingAuthority(), []
    standing.on_change(told.append)
    assert standing.take(first)
    assert not standing.take(same)
    assert told == [first]
    assert standing.current is first

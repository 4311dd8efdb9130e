"""Which authority signs: the operator's where that cuts nothing, else what the mesh trusts."""

from __future__ import annotations

import pytest

from tests.identity.builders import NOW
from tests.identity.sets import one_step
from ztunnel.ca.choice import Candidate, Choice, choose
from ztunnel.errors import Fault
from ztunnel.identity.authority import read_authority
from ztunnel.identity.plugged_in import assemble


def read(found=None):
    return read_authority(assemble((found or one_step()).files(), str), "cluster.local", NOW)


A, B = read(), read()
WRONG = (Fault("cacerts", 0, "", "wrong"),)
GOOD_A, GOOD_B = Candidate("own", A), Candidate("cacerts", B)
FORCED_B, BAD = Candidate("cacerts", B, forced=True), Candidate("cacerts", faults=WRONG)
ONLY_A, BOTH = A.roots, (*A.roots, *B.roots)


@pytest.mark.parametrize(
    ("plugged", "own", "current", "trusted", "chosen"),
    [
        (None, None, None, None, None),
        (None, None, A, ONLY_A, A),
        (None, GOOD_A, None, None, A),
        (GOOD_B, None, None, None, B),
        (GOOD_B, GOOD_A, None, None, B),
        (GOOD_B, GOOD_A, A, BOTH, B),
        (FORCED_B, GOOD_A, A, ONLY_A, B),
        (None, GOOD_A, B, BOTH, A),
    ],
)
def test_signs_and_nothing_is_to_be_said(plugged, own, current, trusted, chosen):
    assert choose(plugged, own, current, trusted) == Choice(chosen)


@pytest.mark.parametrize(
    ("plugged", "own", "current", "trusted", "chosen"),
    [
        (GOOD_B, GOOD_A, A, ONLY_A, A),
        (GOOD_B, GOOD_A, None, ONLY_A, A),
        (GOOD_B, None, None, ONLY_A, B),
        (GOOD_B, None, A, ONLY_A, A),
        (None, GOOD_A, B, B.roots, B),
        (None, GOOD_A, None, B.roots, A),
    ],
)
def test_a_root_that_nobody_trusts_yet_is_said_and_signs_only_where_nothing_else_can(
    plugged, own, current, trusted, chosen
):
    choice = choose(plugged, own, current, trusted)
    assert choice.authority is chosen
    assert "its root is none that the mesh trusts so far" in choice.faults[0].message


@pytest.mark.parametrize(
    ("own", "current", "trusted", "chosen"),
    [
        (None, None, None, None),
        (GOOD_A, None, None, None),
        (GOOD_A, None, ONLY_A, A),
        (GOOD_A, None, B.roots, None),
        (GOOD_A, B, BOTH, B),
    ],
)
def test_one_that_is_wrong_is_said_and_what_was_trusted_signs(own, current, trusted, chosen):
    assert choose(BAD, own, current, trusted) == Choice(chosen, WRONG)


def test_a_self_signed_one_that_is_wrong_is_said():
    wrong = Candidate("own", faults=WRONG)
    assert choose(None, wrong, A, ONLY_A) == Choice(A, WRONG)
    assert choose(None, wrong, None, None) == Choice(None, WRONG)

"""From a CA certificate up to a root, beside what `test_authority` tells of whole sets."""

from __future__ import annotations

import pytest
from cryptography import x509

from tests.identity.builders import Authority, uri
from ztunnel.identity.ascent import NoAscent, ascend


def up(*authorities: Authority) -> list[x509.Certificate]:
    return [one.certificate for one in authorities]


def test_the_path_goes_by_who_has_signed_whom() -> None:
    root, other = Authority.root(), Authority.root("other")
    upper = root.child("upper")
    lower = upper.child("lower")
    path = ascend(lower.certificate, up(other, lower, upper), up(other, root), "cluster.local")
    assert path == up(lower, upper, root)


def test_a_root_in_the_chain_that_another_root_vouches_for_ends_at_the_nearest() -> None:
    old, new = Authority.root("old"), Authority.root("new")
    signer = new.child()
    crossed = new.crossed_by(old)
    assert ascend(signer.certificate, up(crossed), up(old, new), "x") == up(signer, new)
    assert ascend(signer.certificate, up(crossed), up(old), "x") == up(signer, crossed, old)


def test_two_that_vouch_for_each_other_lead_nowhere() -> None:
    a, b = Authority.root("a"), Authority.root("b")
    with pytest.raises(NoAscent, match="goes round"):
        ascend(a.crossed_by(b).certificate, up(b.crossed_by(a), a.crossed_by(b)), [], "x")


def test_a_long_way_up_ends() -> None:
    authority = root = Authority.root()
    steps = []
    for number in range(9):
        authority = authority.child(f"step {number}")
        steps.append(authority)
    with pytest.raises(NoAscent, match="goes round"):
        ascend(authority.certificate, up(*steps), up(root), "x")


@pytest.mark.parametrize(
    ("names", "good"),
    [
        (["cluster.local"], True),
        ([".local"], True),
        (["local"], False),
        (["CLUSTER.local"], True),
        (["other"], False),
    ],
)
def test_the_names_that_a_root_may_vouch_for_hold_for_all_below(names: list[str], good: bool) -> None:
    root = Authority.root()
    upper = root.child("upper", constraints=x509.NameConstraints([uri(name) for name in names], None))
    lower = upper.child("lower")
    if good:
        assert ascend(lower.certificate, up(upper), up(root), "cluster.local") == up(lower, upper, root)
    else:
        with pytest.raises(NoAscent, match="'O=upper' may not vouch") as refusal:
            ascend(lower.certificate, up(upper), up(root), "cluster.local")
        assert refusal.value.where == upper.certificate

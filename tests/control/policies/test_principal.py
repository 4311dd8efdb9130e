"""`cluster.local` and the aliases of a trust domain mean the mesh's own, wherever a principal names one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.control.policies.principal import foreign_trust_domain, match_principals, match_text
from ztunnel.control.settings import MeshSettings
from ztunnel.model.policy import MatchKind, StringMatch

PROD = MeshSettings(trust_domain="prod.example")
MOVED = MeshSettings(trust_domain="new.example", trust_domain_aliases=("old.example",))
WHO = "ns/shop/sa/a"


def written(matches):
    stars = {
        MatchKind.EXACT: "{}",
        MatchKind.PREFIX: "{}*",
        MatchKind.SUFFIX: "*{}",
        MatchKind.PRESENCE: "*",
    }
    return [stars[one.kind].format(one.text) for one in matches]


@pytest.mark.parametrize(
    ("value", "settings", "meant"),
    [
        (f"cluster.local/{WHO}", MeshSettings(), [f"cluster.local/{WHO}"]),
        (f"cluster.local/{WHO}", PROD, [f"prod.example/{WHO}"]),
        (f"prod.example/{WHO}", PROD, [f"prod.example/{WHO}"]),
        (f"cluster.local/{WHO}", MOVED, [f"new.example/{WHO}", f"old.example/{WHO}"]),
        (f"old.example/{WHO}", MOVED, [f"new.example/{WHO}", f"old.example/{WHO}"]),
        (f"new.example/{WHO}", MOVED, [f"new.example/{WHO}", f"old.example/{WHO}"]),
        (f"elsewhere/{WHO}", MOVED, [f"elsewhere/{WHO}"]),
        ("cluster.local/ns/shop/*", PROD, ["prod.example/ns/shop/*"]),
        ("cluster.local/*", PROD, ["prod.example/*"]),
        ("cluster.local*", PROD, ["cluster.local*", "prod.example/*"]),
        ("cluster*", PROD, ["cluster*", "prod.example/*"]),
        ("pro*", PROD, ["pro*"]),
        ("*", PROD, ["*"]),
        (f"*/{WHO}", PROD, [f"*/{WHO}"]),
        (f"*local/{WHO}", PROD, [f"*local/{WHO}", f"prod.example/{WHO}"]),
        (f"*.example/{WHO}", PROD, [f"*.example/{WHO}"]),
        (f"*.example/{WHO}", MOVED, [f"*.example/{WHO}"]),
        (f"*elsewhere/{WHO}", PROD, [f"*elsewhere/{WHO}"]),
        ("*/sa/a", PROD, ["*/sa/a"]),
        ("*sa/a", PROD, ["*sa/a"]),
        ("*a", PROD, ["*a"]),
        ("sa/a", PROD, ["sa/a"]),
        (f"spiffe://cluster.local/{WHO}", PROD, [f"spiffe://cluster.local/{WHO}"]),
    ],
)
def test_a_principal_means_the_own_trust_domain(value, settings, meant):
    assert written(match_principals([value], settings)) == meant


@given(st.text("cluster.loa*/ns", max_size=20))
def test_where_the_trust_domain_is_the_default_a_principal_means_what_is_written(value):
    assert match_principals([value], MeshSettings()) == (match_text(value),)


@given(st.text("abprod.exmlcuste*/ns", max_size=20))
def test_what_matches_the_name_matches_the_own_trust_domain(value):
    (asked,) = match_principals([value], MeshSettings())
    if "/" in value and not value.startswith("*") and asked.matches(f"cluster.local/{WHO}"):
        assert any(one.matches(f"prod.example/{WHO}") for one in match_principals([value], PROD))


def test_each_comparison_stands_once():
    values = [f"cluster.local/{WHO}", f"prod.example/{WHO}"]
    assert match_principals(values, PROD) == (StringMatch(MatchKind.EXACT, f"prod.example/{WHO}"),)


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        (f"elsewhere/{WHO}", "elsewhere"),
        (f"cluster.local/{WHO}", ""),
        (f"old.example/{WHO}", ""),
        (f"*/{WHO}", ""),
        ("*", ""),
        ("name", ""),
    ],
)
def test_a_trust_domain_of_others_is_told(value, domain):
    assert foreign_trust_domain(value, MOVED) == domain

"""String matches against an oracle, and the keys of policies."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import policy
from ztunnel.model.policy import MatchKind, StringMatch

texts = st.text(alphabet="ab./-*", max_size=8)
PATTERNS = {
    MatchKind.EXACT: "{}",
    MatchKind.PREFIX: "{}*",
    MatchKind.SUFFIX: "*{}",
    MatchKind.PRESENCE: "?*",
}


@given(st.sampled_from(MatchKind), texts, texts)
def test_a_match_is_what_its_pattern_says(kind: MatchKind, text: str, candidate: str) -> None:
    escaped = text.replace("*", "[*]")
    assert StringMatch(kind, text).matches(candidate) == fnmatchcase(
        candidate, PATTERNS[kind].format(escaped)
    )


@pytest.mark.parametrize(
    ("kind", "text", "candidate", "expected"),
    [
        (MatchKind.EXACT, "a.b", "a.b", True),
        (MatchKind.EXACT, "a.b", "axb", False),
        (MatchKind.EXACT, "a", "A", False),
        (MatchKind.EXACT, "", "", True),
        (MatchKind.PREFIX, "cluster.local/ns/a", "cluster.local/ns/ab/sa/x", True),
        (MatchKind.SUFFIX, "/sa/a", "cluster.local/ns/x/sa/a", True),
        (MatchKind.SUFFIX, "/sa/a", "cluster.local/ns/x/sa/ba", False),
        (MatchKind.PRESENCE, "", "", False),
        (MatchKind.PRESENCE, "", "x", True),
    ],
)
def test_no_character_is_special(kind: MatchKind, text: str, candidate: str, expected: bool) -> None:
    assert StringMatch(kind, text).matches(candidate) is expected


def test_a_policy_is_known_by_namespace_and_name() -> None:
    assert policy("p", "shop").key == "shop/p"

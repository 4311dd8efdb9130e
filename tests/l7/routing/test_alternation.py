"""Which of many expressions match, found by asking few of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.regex import any_of, regex
from ztunnel.l7.routing.alternation import Alternation

patterns = st.lists(
    st.sampled_from(["a", "b.*", ".*b", "(?i)A", "a|b", "(?P<n>a)", "[ab]{2}", "", "c"]), min_size=1
)


def matching(tree: Alternation, text: bytes) -> list[int]:
    found, least = [], 0
    while (number := tree.next(text, least)) >= 0:
        found.append(number)
        least = number + 1
    return found


@given(patterns, st.text("abc", max_size=3).map(str.encode))
def test_they_are_those_that_match_each_by_itself_in_order(some: list[str], text: bytes) -> None:
    tree = Alternation([(3 * number, pattern) for number, pattern in enumerate(some)])
    assert matching(tree, text) == [3 * n for n, pattern in enumerate(some) if regex(pattern).matches(text)]


def test_of_a_thousand_each_is_found() -> None:
    tree = Alternation([(number, f".*/s-{number:04}/[a-z]+") for number in range(1000)])
    for number in (0, 7, 8, 63, 64, 511, 512, 999):
        assert matching(tree, b"/a/s-%04d/b" % number) == [number]
    assert matching(tree, b"/a/s-1000/b") == []


def test_what_cannot_be_one_expression_is_asked_one_by_one() -> None:
    assert any_of(["a", "("]) is None


def test_names_of_groups_can_be_the_same() -> None:
    assert matching(Alternation([(0, "(?P<n>a)"), (1, "(?P<n>b)")]), b"b") == [1]

"""Short names are made whole, and what `*` means is known both ways."""

import pytest

from ztunnel.control.routes.hosts import covering, covers, is_exported, whole_name


@pytest.mark.parametrize(
    ("host", "whole"),
    [
        ("reviews", "reviews.shop.svc.c.local"),
        ("reviews.other", "reviews.other"),
        ("*", "*"),
        ("*.example", "*.example"),
        ("", ""),
        ("fd00::1", "fd00::1"),
    ],
)
def test_a_short_name_is_of_its_own_namespace(host, whole):
    assert whole_name(host, "shop", "c.local") == whole


@pytest.mark.parametrize(
    ("host", "patterns"),
    [
        ("a.b.c", ["a.b.c", "*.b.c", "*.c", "*"]),
        ("*.b.c", ["*.b.c", "*.c", "*"]),
        ("a", ["a", "*"]),
        ("*", ["*"]),
    ],
)
def test_all_that_means_a_host_the_most_specific_first(host, patterns):
    assert list(covering(host)) == patterns
    assert all(covers(each, host) for each in patterns)


@pytest.mark.parametrize(("pattern", "host"), [("*.b.c", "b.c"), ("*.b.c", "a.xb.c"), ("a", "b"), ("a", "*")])
def test_what_means_another(pattern, host):
    assert not covers(pattern, host)
    assert pattern not in list(covering(host))


@pytest.mark.parametrize(
    ("export_to", "client", "exported"),
    [
        ((), "x", True), (("*",), "x", True), ((".",), "own", True), ((".",), "x", False),
        (("x",), "x", True), (("x",), "own", False), (("~",), "own", False),
    ],
)  # fmt: skip
def test_who_sees_an_object(export_to, client, exported):
    assert is_exported(export_to, "own", client) is exported

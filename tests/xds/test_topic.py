"""What a publisher remembers of one type."""

from ztunnel.xds.topic import Topic


def test_nothing_was_sent_and_all_is_in_doubt_at_first():
    first, second = Topic(), Topic()
    assert (first.sent, first.names, first.doubtful, first.awaited) == ({}, set(), None, "")
    first.sent["a"] = "1"
    assert second.sent == {}

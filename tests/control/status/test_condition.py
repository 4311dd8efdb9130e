"""A message is one that people read."""

from ztunnel.control.status.condition import MOST_MESSAGE, cut


def test_a_message_is_not_longer_than_it_may_be():
    assert cut("short") == "short"
    assert cut("x" * MOST_MESSAGE) == "x" * MOST_MESSAGE
    assert cut("x" * (MOST_MESSAGE + 1)) == "x" * MOST_MESSAGE + "..."

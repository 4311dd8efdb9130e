"""What all sessions hold."""

from __future__ import annotations

from ztunnel.hbone.ledger import Ledger
from ztunnel.http2.limits import Limits


def test_a_ledger_holds_as_many_bytes_as_its_limits_say() -> None:
    ledger = Ledger(Limits(buffered_bytes=0))
    assert ledger.held.refuses("pod", "source")
    assert not Ledger().held.refuses("pod", "source")
    assert ledger.buffered_bytes == 0

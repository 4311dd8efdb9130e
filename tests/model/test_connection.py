"""What a policy and a metric may look at."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from tests.builders import connection
from ztunnel.model.connection import Direction, Security


def test_a_connection_is_a_value() -> None:
    one = connection("10.0.0.1:40000", "10.0.0.2:80", "default/a")
    assert one == connection("10.0.0.1:40000", "10.0.0.2:80", "default/a")
    assert one != connection("10.0.0.1:40000", "10.0.0.2:80")
    assert hash(one) == hash(connection("10.0.0.1:40000", "10.0.0.2:80", "default/a"))
    with pytest.raises(FrozenInstanceError):
        one.identity = None  # type: ignore[misc]


def test_an_address_is_no_identity() -> None:
    assert connection("10.0.0.1:40000", "10.0.0.2:80").identity is None


def test_metrics_and_logs_have_istios_words() -> None:
    assert [each.value for each in Security] == ["unknown", "mutual_tls"]
    assert [each.value for each in Direction] == ["inbound", "outbound"]

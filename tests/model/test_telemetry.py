from __future__ import annotations

from ztunnel.model.telemetry import METRICS, REQUEST_METRICS, TCP_METRICS, Mode, Telemetry


def test_a_key_is_namespace_and_name() -> None:
    assert Telemetry("a", "n").key == "n/a"


def test_names_are_those_of_the_api() -> None:
    assert list(Mode) == ["CLIENT_AND_SERVER", "CLIENT", "SERVER"]
    assert (len(REQUEST_METRICS), len(TCP_METRICS), len(set(METRICS))) == (6, 4, 10)
